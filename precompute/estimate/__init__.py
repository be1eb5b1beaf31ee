"""`saevx precompute --dry-run`: time, memory and bytes of a run, estimated before it."""
