"""The verbs of ``nrp`` that this room answers, one a file."""
