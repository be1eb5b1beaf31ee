"""Multimodal models: loading, preparing pairs, running them up to a layer."""
