"""The paper's experiments, rerun on the demo's model: each a command that writes one result file
(docs/results.md shows them)."""

from precompute.errors import require_checkout

require_checkout(__name__, __file__, "cli.py")
