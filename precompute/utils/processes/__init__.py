"""Processes that a command begins: workers of a Ray cluster, and processes of its own machine."""
