"""The options of every offline command, apart from what runs them, so that `--help` answers at once."""
