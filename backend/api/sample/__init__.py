"""One sample: why its scores are what they are, and which others are near."""
