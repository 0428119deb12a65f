"""Victims: models of three tasks, as something to attack and to judge."""
