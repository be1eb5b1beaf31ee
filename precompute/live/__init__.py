"""What the model answers while a server runs: search, the scores of a pair, steering."""
