"""The paper's experiments, rerun on the demo's model: each a command that writes one result file
(docs/results.md shows them)."""
