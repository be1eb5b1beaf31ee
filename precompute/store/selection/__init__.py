"""Which samples: those nearest to one, and those that pass filters."""
