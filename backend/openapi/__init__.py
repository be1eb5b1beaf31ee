"""The OpenAPI document: what fields mean, and an example of each."""
