"""What people write, on the pages: the panel of a feature or sample, lists, the basket, saved filters."""
