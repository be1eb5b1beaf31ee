"""Hostile input: lists of cases, each with a name and what must become of it, for the tests and for counts."""
