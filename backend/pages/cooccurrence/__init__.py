"""The pages of features that share samples: all of them, and the samples of a pair."""
