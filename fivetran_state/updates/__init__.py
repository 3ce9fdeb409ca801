"""One change of one connection, or of several together, as a durable workflow."""
