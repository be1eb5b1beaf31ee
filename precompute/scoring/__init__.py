"""Scores, flags and their reasons: of stored pairs, of new data and of a live pair."""
