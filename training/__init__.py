"""Recipes that produce checkpoints: feature network, classifiers, purifier."""
