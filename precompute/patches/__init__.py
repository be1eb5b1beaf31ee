"""`saevx patches`: how much of a task is left when a model sees only the best patches."""
