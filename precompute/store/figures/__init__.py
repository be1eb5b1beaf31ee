"""Figures of a whole store that one page draws."""
