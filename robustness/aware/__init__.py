"""Attackers who know the purifier, by the rules under which an evaluation of a randomised defence is believed.

Nothing here but ``rows`` needs pydantic or scikit-image, so that the protocol also runs on a bare machine.
"""
