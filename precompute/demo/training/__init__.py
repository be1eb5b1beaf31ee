"""How the weights that the demo ships were trained. Run from a checkout: the wheel has only this file."""

from precompute.errors import require_checkout

require_checkout(__name__, __file__, "train_sae.py")
