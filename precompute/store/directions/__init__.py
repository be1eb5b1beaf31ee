"""What a store tells of decoder directions: the vectors, and families of near-copies."""
