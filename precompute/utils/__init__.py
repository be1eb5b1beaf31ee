"""Helpers that know nothing of models, samples or features: arrays in runs, files, texts, memory, processes."""
