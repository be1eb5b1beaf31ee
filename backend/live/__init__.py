"""What a running server asks of the model."""
