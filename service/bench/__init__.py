"""``nrp bench``: this service measured beside the servers that people would pick instead."""
