"""The page of one feature: its route, and what each part of it shows."""
