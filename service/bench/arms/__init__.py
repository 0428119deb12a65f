"""The servers that are measured beside this one, each a process of its own that is started as a module."""
