"""Many images in one request: ``POST /purify/batch``."""
