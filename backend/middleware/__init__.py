"""ASGI layers around the application, from the outside in: frame, hosts, login."""
