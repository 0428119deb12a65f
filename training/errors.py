"""Every error training raises.

NrpError (model_store)
├─ DataError      a folder or file cannot be trained on; the text names it
├─ RecipeError    a recipe is missing, unreadable or against its schema
└─ RunError       a run folder belongs to another recipe or its data changed, or training diverged
   └─ OutOfTimeError  the minutes were up before the first step; what was made is kept
"""

from __future__ import annotations

from model_store.errors import NrpError


class DataError(NrpError):
    """A folder or file cannot be trained on."""


class RecipeError(NrpError):
    """A recipe is missing, unreadable or against its schema."""


class RunError(NrpError):
    """A run cannot start, continue or go on."""


class OutOfTimeError(RunError):
    """The time allowed was up before the first step; the same command goes on."""
