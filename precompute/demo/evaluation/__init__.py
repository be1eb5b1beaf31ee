"""How the demo is measured for docs/demo.md. Run from a checkout: the wheel has only this file."""

from precompute.errors import require_checkout

require_checkout(__name__, __file__, "evaluate.py")
