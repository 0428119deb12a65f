"""Readers of labelled data: each gives Examples."""
