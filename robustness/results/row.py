"""A row: one measured figure with all that it depends on, as one JSON file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["classification", "segmentation", "detection"]
Attacker = Literal["none", "white box", "transfer", "aware"]


class Row(BaseModel):
    """What ``victim`` behind ``defence`` scores under ``attack`` within ``eps`` /255.

    ``attacker`` "white box" knows the victim and not the defence, "transfer" only ``surrogate``, "aware" both the
    victim and the defence, "none" is the clean row (attack "clean", eps 0). ``table`` is where the row belongs
    ("T1" to "T7", "F1", "F6", "unaware", "transfer", "aware", "overview", "card", "checks", "bars", "certified",
    "suspicion"), ``section`` which part of its suite measured it, which may be run by itself; ``series``
    and ``x`` are a plot's line and abscissa, a noise and a certified radius, or whose figure of several it is.
    ``percent`` None means not measured, and ``missing`` says why. ``settings`` are the attack's,
    ``weights`` and ``data`` sha256 by name, ``versions`` of packages. Not a number and infinity are no figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    suite: str
    section: str = ""
    table: str
    task: Task
    attacker: Attacker
    attack: str
    eps: int = Field(ge=0, le=255)
    surrogate: str | None = None
    victim: str
    defence: str
    role: Literal["none", "baseline", "purifier"]
    metric: str
    percent: float | None
    interval: tuple[float, float] | None = None
    count: int = Field(ge=0)
    missing: str = ""
    series: str = ""
    x: float | None = None
    settings: dict[str, Any] = {}
    weights: dict[str, str] = {}
    data: dict[str, str] = {}
    versions: dict[str, str] = {}
    device: str = "cpu"
    precision: str = "float32"
    seed: int = 0
    command: str = ""
    seconds: float = 0.0

    @model_validator(mode="after")
    def _measured_or_missing(self) -> Row:
        if (self.percent is None) != bool(self.missing):
            raise ValueError("a row has a figure, or says why it has none")
        return self

    @property
    def identity(self) -> tuple[str, ...]:
        """What the row is the figure of: a second row of the same identity is the same thing measured again."""
        return (
            self.suite,
            self.table,
            self.task,
            self.attacker,
            self.attack,
            str(self.eps),
            self.surrogate or "",
            self.victim,
            self.defence,
            self.series,
            "" if self.x is None else f"{self.x:g}",
            self.metric,
        )

    @property
    def title(self) -> str:
        """For a person, in an error."""
        where = f" from {self.surrogate}" if self.surrogate else ""
        series = f", series {self.series}" if self.series else ""
        place = "" if self.x is None else f" at {self.x:g}"
        return (
            f"{self.table} of suite {self.suite}: {self.metric} of {self.victim} behind {self.defence} under "
            f"{self.attack}{where} ({self.attacker}), eps {self.eps}{series}{place}"
        )
