"""`saevx controls`: the test behind `cross-modal` where there is nothing to find."""
