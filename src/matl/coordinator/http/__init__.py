"""The HTTP and WebSocket door of a coordinator: requests in, one call of the service each, JSON out."""
