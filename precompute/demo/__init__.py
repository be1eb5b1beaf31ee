"""The demo: a small real multimodal model, an SAE-V for it and pictures to look at, made from packages."""
