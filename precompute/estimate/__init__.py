"""`saevx precompute --dry-run`: time, memory and bytes foretold."""
