"""The demo: a small real multimodal model, an SAE-V for it and images to look at, made from packages."""
