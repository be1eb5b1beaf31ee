"""`saevx train` and `saevx evaluate`."""
