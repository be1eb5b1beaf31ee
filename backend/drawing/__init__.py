"""How pages are drawn at little cost: the Jinja environment, and the fragments that a page repeats."""
