"""What the API receives and sends, one model per shape. Field names are the method's terms; activations are in the
SAE's real units (the run-time input scaling undone), never in the store's float16 units."""
