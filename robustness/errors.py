"""Every error that evaluation raises.

NrpError
└─ EvaluationError       a measurement cannot be made as asked
   ├─ PhotoFolderError   the labelled folder is missing, holds the wrong classes, or a photo cannot be decoded
   ├─ AttackError        an attack cannot be made as asked
   ├─ VictimError        a model cannot serve in the part it was named for
   ├─ CacheError         a cached result is damaged or of another run
   └─ OutOfTimeError     the time is over; what was finished is kept
"""

from __future__ import annotations

from model_store.errors import NrpError


class EvaluationError(NrpError):
    """A measurement cannot be made as asked."""


class PhotoFolderError(EvaluationError):
    """The labelled folder, or a photo in it, cannot be used."""


class AttackError(EvaluationError):
    """An attack lacks what it needs, or its settings make no attack."""


class VictimError(EvaluationError):
    """A model cannot serve as the victim or the purifier."""


class CacheError(EvaluationError):
    """A cached result is not what its name says."""


class OutOfTimeError(EvaluationError):
    """The time given is over before everything was measured."""
