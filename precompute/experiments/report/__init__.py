"""docs/results.md from the committed result files (`python -m precompute.experiments.report`)."""
