"""Sparse autoencoders: reading, checking and running them."""
