"""The HTTP service: bytes in, bytes out. Knows what a model is, and nothing of how one is trained."""
