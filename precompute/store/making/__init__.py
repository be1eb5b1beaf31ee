"""How a store is written, checked and verified."""
