"""The downstream models: what a purified image is for.

A classifier, a segmenter or a detector, each from the model store or, as ``torchvision:NAME``, any of torchvision's
with its official weights, labels and preprocessing, downloaded on first use; a classifier also, as ``timm:NAME``, any
of timm's. All take images in [0,1] of any size and give one finding an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from model_store.errors import IncompatibleWeightsError
from model_store.official import Kind
from model_store.pixels import LONGEST_ASPECT, centre
from model_store.scenes import SceneScale
from service.findings import Detections, Finding, likeliest, probabilities_of, scaled_back

# Networks of scenes keep many channels at high resolution: fewer pixels of theirs fit than of a purifier or classifier.
SCENE_WEIGHT = 4


class AnyDownstream(Protocol):
    """What every downstream model tells of itself, here or ``remote``.

    ``labels``: those of a remote one as far as it has told them. ``sha256``: of its weights, "" where nobody vouches
    for them. ``scales``: it brings large images to a size of its own.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def sha256(self) -> str: ...
    @property
    def scales(self) -> bool: ...
    @property
    def remote(self) -> bool: ...


@dataclass(frozen=True, eq=False)
class Downstream(ABC):
    """``module`` maps what ``inputs`` makes of images to what ``findings`` reads.

    ``exact``: it must run in float32 even where the engine computes in bfloat16, because coordinates or a program's
    own code would suffer.
    """

    name: str
    labels: tuple[str, ...]
    sha256: str
    module: nn.Module
    exact: bool

    kind: ClassVar[Kind]
    remote: ClassVar[bool] = False
    averages: ClassVar[bool]  # over noisy draws; else it is asked once, about the mean purified image

    @property
    def scales(self) -> bool:
        """Whether it brings large images to a size of its own, so that what it takes is bounded."""
        return True

    @abstractmethod
    def inputs(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0,1] of any size, brought to the model's."""

    @abstractmethod
    def extent(self, height: int, width: int) -> int:
        """What one image of that height and width counts for in a run's budget of pixels."""

    @abstractmethod
    def findings(self, output: Any, height: int, width: int) -> Sequence[Finding]:
        """The findings in the module's output for images of that height and width, one an image.

        Raises IncompatibleWeightsError for an output that its task does not allow.
        """

    def settled(self, finding: Finding, draws: int, height: int, width: int) -> Finding:  # noqa: ARG002 - see Segmenter
        """The answer that ``finding`` amounts to; ``finding`` is a sum over ``draws`` where the model ``averages``."""
        return finding / draws if isinstance(finding, Tensor) else finding

    def held(self, height: int, width: int) -> int:  # noqa: ARG002 - see Segmenter
        """Pixels of what is kept for one such image while its draws are added up, where that is much."""
        return 0

    def _logits(self, output: Any, dimensions: int) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != dimensions or output.shape[1] != len(self.labels):
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise IncompatibleWeightsError(
                f"{self.name!r} gave {what}, not the logits of {len(self.labels)} labels; correct its card or program"
            )
        return output.float()


@dataclass(frozen=True, eq=False)
class Classifier(Downstream):
    """``prepare`` makes of images what ``module`` maps to logits (N, len(labels)). Finding: probabilities (classes,).

    ``crop``: the side of what ``prepare`` makes, None where it leaves images as they are.
    """

    prepare: Callable[[Tensor], Tensor]
    crop: int | None

    kind = "classifier"
    averages = True

    def inputs(self, images: Tensor) -> Tensor:
        """A strip loses its far ends first: scaled up whole, as torchvision's transforms would, it would fill the
        memory."""
        return self.prepare(centre(images, LONGEST_ASPECT * min(images.shape[-2:])))

    @property
    def scales(self) -> bool:
        return self.crop is not None

    def extent(self, height: int, width: int) -> int:
        return height * width if self.crop is None else self.crop**2

    def findings(self, output: Any, height: int, width: int) -> Sequence[Finding]:  # noqa: ARG002 - of any size
        return list(self._logits(output, 2).softmax(dim=1))


@dataclass(frozen=True, eq=False)
class Segmenter(Downstream):
    """``module`` maps scenes to logits (N, len(labels), h, w), of the scaled scene's size.

    Finding: probabilities (classes, h, w), which are brought to the image's own size last, when a mask is made of them.
    """

    scale: SceneScale

    kind = "segmenter"
    averages = True

    def inputs(self, images: Tensor) -> Tensor:
        return self.scale(images)

    def extent(self, height: int, width: int) -> int:
        return SCENE_WEIGHT * self.scale.pixels(height, width)

    def held(self, height: int, width: int) -> int:
        return self.scale.pixels(height, width)

    def findings(self, output: Any, height: int, width: int) -> Sequence[Finding]:  # noqa: ARG002 - see settled
        return list(self._logits(output, 4).softmax(dim=1))

    def settled(self, finding: Finding, draws: int, height: int, width: int) -> Finding:  # noqa: ARG002 - same maximum
        return likeliest(probabilities_of(finding), height, width)


@dataclass(frozen=True, eq=False)
class Detector(Downstream):
    """``module`` maps scenes to one dict of boxes, scores and labels each, boxes in pixels of the scaled scene."""

    scale: SceneScale

    kind = "detector"
    averages = False

    def inputs(self, images: Tensor) -> Tensor:
        return self.scale(images)

    def extent(self, height: int, width: int) -> int:
        return SCENE_WEIGHT * self.scale.pixels(height, width)

    def findings(self, output: Any, height: int, width: int) -> Sequence[Finding]:
        return [self._detections(found, height, width) for found in output]

    def _detections(self, found: Any, height: int, width: int) -> Detections:
        try:
            boxes, scores, labels = found["boxes"].float(), found["scores"].float(), found["labels"].long()
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise IncompatibleWeightsError(
                f"{self.name!r} must give a dict of boxes, scores and labels an image"
            ) from error
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.labels):
            raise IncompatibleWeightsError(f"{self.name!r} found label {int(labels.max())} of {len(self.labels)}")
        return scaled_back(Detections(boxes, scores, labels), self.scale.size(height, width), (height, width))
