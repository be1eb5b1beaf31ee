"""How features get their names: what tests a name, and the description that stands where a name fails."""
