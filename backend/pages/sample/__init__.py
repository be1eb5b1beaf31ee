"""The page of one pair: what fires where, why its scores are what they are, and the samples nearest to it."""
