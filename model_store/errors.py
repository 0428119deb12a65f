"""Every error the model store raises.

NrpError                      any error this project raises on purpose; its text is one line for a person
└─ ModelStoreError
   ├─ UnknownModelError       no model of that name; the text lists those there are
   ├─ UnknownArchitectureError
   ├─ InvalidCardError        card.json missing, unreadable, or against its schema
   ├─ TamperedWeightsError    weights missing or not the bytes that the card's sha256 names
   ├─ IncompatibleWeightsError  parameter names or shapes differ from the architecture's
   ├─ ModelExistsError        publish without leave to replace
   ├─ InvalidSmoothingError   noise, counts or a confidence that certify nothing
   ├─ UnavailableDeviceError  a device that PyTorch does not see
   └─ UnavailableModelError   an external model (torchvision) that cannot be had here
"""

from __future__ import annotations


class NrpError(Exception):
    """Base of every error raised on purpose; ``str(error)`` is one line that names the next step."""


class ModelStoreError(NrpError):
    """Base of the model store's errors."""


class UnknownModelError(ModelStoreError):
    """No model of that name in the store."""


class UnknownArchitectureError(ModelStoreError):
    """A card or caller names an architecture that does not exist."""


class InvalidCardError(ModelStoreError):
    """The card is missing, unreadable, or does not fit its schema."""


class TamperedWeightsError(ModelStoreError):
    """The weights are missing or are not the bytes the card vouches for."""


class IncompatibleWeightsError(ModelStoreError):
    """Parameter names or shapes do not fit the architecture."""


class ModelExistsError(ModelStoreError):
    """A model of that name is already published."""


class InvalidSmoothingError(ModelStoreError):
    """What a certificate is asked for with can certify nothing."""


class UnavailableModelError(ModelStoreError):
    """An external model cannot be built or downloaded here."""


class UnavailableDeviceError(ModelStoreError):
    """A device was asked for that PyTorch does not see."""
