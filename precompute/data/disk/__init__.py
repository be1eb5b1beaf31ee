"""Rows and ids of millions of pairs in little memory: files that are mapped, and columns of numbers."""
