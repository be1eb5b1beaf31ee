"""Three more ways to tell a wrong caption: where a word's features fire, what its likelihood owes to patches, ridge."""
