"""The purifier's recipe and those of the adversaries it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from training.recipe import Bounded, Bounds, Count, Decay, Pixels, Positive, Precision, Recipe, Share, Weight

AdversaryKind = Literal["ssp", "prediction", "momentum", "diverse", "single-step"]
Source = Literal["bank", "online"]
Objective = Literal["prediction", "feature"]
PixelNorm = Literal["absolute", "squared", "root"]
Budget = Annotated[float, Bounds(least=0, most=255)]
Part = Annotated[float, Bounds(above=0, most=1)]


@dataclass(frozen=True, kw_only=True)
class AdversaryRecipe(Bounded):
    """Adversaries that know nothing of the purifier. None of them needs a label.

    ``source``: a ``bank`` of at most ``count`` photos, of ``side`` pixels, made once and reused, or ``online``, made
    anew from the photos of every step. Every ``refresh_every`` steps (0: never) the bank gets a round of ``count``
    pairs of other photos, made anew, and the latest ``rounds_kept`` rounds stay in it. ``kinds`` cycle over batches,
    and so do, slower, budgets and the networks of the ensemble: ``ssp`` moves a layer's features away from the clean
    image's, as published; the others raise the loss of a network's own answer: ``prediction`` by PGD, ``momentum`` by
    MI-FGSM, ``diverse`` by DIM, ``single-step`` by FGSM. A batch's budget is the next of ``eps`` (in /255) or, where
    ``eps_high`` is above 0, uniform in [``eps_low``, ``eps_high``]. A step is ``step_share`` of it, at least 1/255.
    ``start`` is that of ``ssp`` and ``prediction``; the others start from the clean image. ``precision`` is the
    attacked network's.
    """

    source: Source = "bank"
    count: Count = 3000
    refresh_every: Annotated[int, Bounds(least=0)] = 0
    rounds_kept: Count = 1
    side: Pixels = 128
    kinds: tuple[AdversaryKind, ...] = ("ssp",)
    eps: tuple[float, ...] = (4.0, 8.0, 16.0)
    eps_low: Budget = 0.0
    eps_high: Budget = 0.0
    step_share: Positive = 0.25
    iterations: Count = 10
    start: Literal["uniform", "corner"] = "corner"
    batch: Count = 32
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Check that there is something to cycle over, too."""
        super().__post_init__()
        if not self.kinds:
            raise ValueError("kinds must name at least one kind of adversary")
        if self.eps_high and not 0 < self.eps_low <= self.eps_high:
            raise ValueError("eps_low must be above 0 and at most eps_high")
        if not self.eps_high and (not self.eps or min(self.eps) <= 0 or max(self.eps) > 255):
            raise ValueError("eps must name at least one budget, each above 0 and at most 255; or set eps_high")


@dataclass(frozen=True, kw_only=True)
class AdaptiveRecipe(Bounded):
    """Adversaries that know the purifier: PGD through it, as it then is, and a network of the ensemble behind it.

    ``share`` of each batch from ``begins`` (a share of the run) on; every step of the attack meets fresh noise, of the
    strength that the image then gets. ``objective``: how far the answer to the purified image is from that to the
    clean one, or how far the features are. Budgets are those of the other adversaries.
    """

    share: Share = 0.0
    begins: Share = 0.0
    iterations: Count = 4
    step_share: Positive = 0.4
    start: Literal["uniform", "corner"] = "uniform"
    objective: Objective = "prediction"


@dataclass(frozen=True, kw_only=True)
class PurifierRecipe(Recipe):
    """The purifier: what it sees, how much noise, and how the losses are weighed; ``limits`` goes into its card.

    Judged by an ensemble of frozen networks of the store: ``feature_network`` and any ``surrogates``. ``layers`` name,
    for each of these, the submodules whose outputs are its features; a feature network has its last one without being
    told, a classifier none. ``members_per_step`` (0: all) of them are drawn for each step's losses. ``initial``, a
    purifier of the store and of the same architecture, gives the weights to start from.

    Of each batch ``adversary_share`` is attacked unawares, ``adaptive.share`` through the purifier, and ``clean_share``
    left entirely as it is; the rest are photos that are only corrupted. Corruption is JPEG, for ``jpeg_share`` of the
    images, at a quality uniform in ``jpeg_quality``; then noise, for ``noise_share``, in [0,1] pixel units: std is
    noise_low + (noise_high - noise_low) * u ** noise_power, u uniform in [0,1]; a power under 1 leans to heavy noise.

    ``pixel_norm``: mean absolute, mean squared, or root mean squared difference. Features differ by their mean
    absolute difference, over the clean ones' mean magnitude where ``relative_features``. ``feature_share`` of the
    batch is judged by the ensemble. The critic joins at ``adversarial_from``, a share of the run. ``compiled`` runs
    purifier and ensemble through torch.compile: the first steps take minutes, so for long runs on a GPU only.

    Every ``validate_every`` steps (0: never) the ``judge``, a classifier or feature network with a head, tells on
    ``held_back`` photos that are not trained on how robust the purifier is; the best is what gets published.
    """

    feature_network: str
    surrogates: tuple[str, ...] = ()
    layers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    members_per_step: Annotated[int, Bounds(least=0)] = 0
    initial: str = ""
    steps: Count
    crop: Pixels = 96
    smallest_zoom: Part = 0.6
    adversary_share: Share = 0.5
    clean_share: Share = 0.0
    noise_low: Share = 0.0
    noise_high: Share = 0.35
    noise_power: Positive = 0.5
    noise_share: Share = 1.0
    jpeg_share: Share = 0.0
    jpeg_quality: tuple[int, int] = (15, 95)
    pixel_weight: Weight = 1.0
    pixel_norm: PixelNorm = "absolute"
    feature_weight: Weight = 0.1
    relative_features: bool = True
    prediction_weight: Weight = 0.0
    adversarial_weight: Weight = 5e-3
    adversarial_from: Share = 0.5
    feature_share: Part = 0.5
    ema_decay: Decay = 0.999
    compiled: bool = False
    modes: dict[str, dict[str, Any]] = field(default_factory=dict)
    default_mode: str = "static"
    adversaries: AdversaryRecipe = AdversaryRecipe()
    adaptive: AdaptiveRecipe = AdaptiveRecipe()
    limits: tuple[str, ...] = ()
    validate_every: Annotated[int, Bounds(least=0)] = 0
    held_back: Count = 64
    judge: str = ""

    def __post_init__(self) -> None:
        """Check what one field asks of another, too."""
        super().__post_init__()
        if self.validate_every and not self.judge:
            raise ValueError("validate_every needs a judge: name a classifier of the store")
        if self.adversary_share + self.adaptive.share + self.clean_share > 1 + 1e-9:
            raise ValueError("adversary_share, adaptive.share and clean_share must be at most 1 together")
        if self.noise_low > self.noise_high:
            raise ValueError("noise_low must be at most noise_high")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise ValueError("jpeg_quality must be two qualities of 1 to 100, the lower first")
        if self.uses_bank and self.crop > self.adversaries.side:
            raise ValueError("adversaries.side must be at least crop")
        strangers = sorted(self.layers.keys() - set(self.members))
        if strangers:
            raise ValueError(f"layers names {strangers[0]!r}, which is neither the feature_network nor a surrogate")

    @property
    def members(self) -> tuple[str, ...]:
        """The ensemble's names in the store."""
        return (self.feature_network, *self.surrogates)

    @property
    def uses_bank(self) -> bool:
        """Whether adversaries must be made before the first step."""
        return self.adversary_share > 0 and self.adversaries.source == "bank"

    @property
    def needs_predictions(self) -> bool:
        """Whether a network of the ensemble must have a head."""
        attacked = self.adversary_share > 0 and set(self.adversaries.kinds) != {"ssp"}
        adaptive = self.adaptive.share > 0 and self.adaptive.objective == "prediction"
        return self.prediction_weight > 0 or attacked or adaptive

    @property
    def needs_features(self) -> bool:
        """Whether a network of the ensemble must have a layer to take features from."""
        attacked = self.adversary_share > 0 and "ssp" in self.adversaries.kinds
        adaptive = self.adaptive.share > 0 and self.adaptive.objective == "feature"
        return self.feature_weight > 0 or attacked or adaptive
