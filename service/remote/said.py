"""What a remote model said of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional as F

from service.findings import Finding


@dataclass(frozen=True, eq=False)
class Said:
    """``finding``: on the CPU, in the image's own pixels; probabilities may leave out the last classes.

    ``classes``: how many there are at the least. ``named``: the names that the answer gives, by class number.
    """

    finding: Finding
    classes: int
    named: Mapping[int, str] = field(default_factory=dict)

    def as_wide_as(self, classes: int) -> Finding:
        """The finding; probabilities of ``classes`` classes, those left out being 0."""
        finding = self.finding
        if isinstance(finding, Tensor) and len(finding) < classes:
            return F.pad(finding, (0, classes - len(finding)))
        return finding
