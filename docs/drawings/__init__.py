"""Drawings: scenes that the shipped models recognise, made by formula with fixed seeds. No photo is in them."""
