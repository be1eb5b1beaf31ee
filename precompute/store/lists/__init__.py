"""What lists of features show and are filtered by."""
