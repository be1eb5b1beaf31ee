"""What is computed from the pass's accumulators, one module a step of `--only`."""
