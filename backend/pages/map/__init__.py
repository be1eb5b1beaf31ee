"""The maps: of features, and of samples."""
