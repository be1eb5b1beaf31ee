"""Whether a feature fires on both sides of the same pair, whether both say the same, and where on images it fires."""
