"""Attacks, baseline defences and evaluation: what training attacks with and what evaluation measures with."""
