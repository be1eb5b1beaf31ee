"""What visitors bring: images, and pairs of their own."""
