"""What people write about a store: labels, notes, tags, lists, saved filters, marks of flagged pairs."""
