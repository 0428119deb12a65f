"""The frozen networks that a purifier is attacked through and judged by, as one object."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from model_store.architectures.vgg_features import CONV3_3, VGG16Features
from model_store.devices import place
from robustness.features import layers_of, read_layers
from training.errors import RecipeError
from training.losses import Mean, feature_distance, own, prediction_shift
from training.purifier_recipe import PurifierRecipe

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Member:
    """One network, taking images (N, 3, H, W) in [0,1]; ``identity`` (a sha256, say) is what runs depend on.

    ``layers`` name the submodules whose outputs are its features; without any, a feature network's are conv3-3 and a
    classifier's are of no use. ``faster`` is the module compiled. Raises RecipeError for a layer that is not there.
    """

    name: str
    identity: str
    module: nn.Module = field(repr=False)
    layers: tuple[str, ...] = ()
    faster: Network | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.layers and isinstance(self.module, VGG16Features):
            object.__setattr__(self, "layers", (CONV3_3,))
        known = layers_of(self.module)
        unknown = [layer for layer in self.layers if layer not in known]
        if unknown:
            raise RecipeError(f"{self.name} has no layer {unknown[0]!r}; in [layers], name one of {', '.join(known)}")

    @property
    def answers(self) -> bool:
        """Whether it has a head."""
        return not (isinstance(self.module, VGG16Features) and self.module.head is None)

    def logits(self, images: Tensor) -> Tensor:
        """Its answer (N, classes). Raises TypeError for a network without a head."""
        return (self.faster or self.module)(images)

    def features(self, images: Tensor, layer: str) -> Tensor:
        """The output of ``layer``, (N, C, H, W) of a convolutional one; later layers cost nothing."""
        return read_layers(self.module, (layer,), images)[0]

    def features_and_logits(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """Both, of one pass."""
        seen: list[Tensor] = []

        def hear(_: nn.Module, __: object, output: Tensor) -> None:
            seen.append(output.clone())  # the next layer may overwrite it, as a ReLU in place does

        handle = self.module.get_submodule(layer).register_forward_hook(hear)
        try:
            logits: Tensor = self.module(images)
        finally:
            handle.remove()
        return seen[0], logits


Target = tuple[Member, str]
"""A member and one of its layers; no layer where its answer is meant."""


@dataclass(frozen=True)
class View:
    """A member and the layer that it is looked at through; None where only its answer counts."""

    member: Member
    layer: str | None

    def __call__(self, images: Tensor, *, answer: bool) -> tuple[Tensor | None, Tensor | None]:
        """Features and logits of ``images``, each where the member has them; logits only where ``answer``."""
        answer = answer and self.member.answers
        if self.layer is None:
            return None, self.member.logits(images) if answer else None
        if answer:
            return self.member.features_and_logits(images, self.layer)
        return self.member.features(images, self.layer), None


@dataclass(frozen=True)
class Ensemble:
    """One or more members, frozen: in evaluation mode, and no parameter ever wants a gradient."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise RecipeError("a purifier needs at least one frozen network; name a feature_network in the recipe")
        for member in self.members:
            member.module.eval().requires_grad_(False)

    @staticmethod
    def of(module: nn.Module, name: str = "feature-network", identity: str = "") -> Ensemble:
        """A single network that is handed in."""
        return Ensemble((Member(name, identity, module),))

    @property
    def identity(self) -> str:
        """What runs and banks of adversaries depend on: a single network's own, or a digest of all and their layers."""
        if len(self.members) == 1 and self.members[0].layers in ((), (CONV3_3,)):
            return self.members[0].identity
        text = "\n".join(f"{member.identity} {','.join(member.layers)}" for member in self.members)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def answering(self) -> tuple[Member, ...]:
        """The members with a head."""
        return tuple(member for member in self.members if member.answers)

    @property
    def layered(self) -> tuple[Target, ...]:
        """Each member with each of its layers."""
        return tuple((member, layer) for member in self.members for layer in member.layers)

    def require(self, recipe: PurifierRecipe) -> None:
        """Raise RecipeError where ``recipe`` asks for what no member has."""
        names = ", ".join(member.name for member in self.members)
        if recipe.needs_predictions and not self.answering:
            raise RecipeError(
                f"{names} has no head to predict with; use --recipe purifier-vgg16, or a recipe with "
                "prediction_weight 0 and adversaries of kind ssp alone"
            )
        if recipe.needs_features and not self.layered:
            raise RecipeError(
                f"{names} has no layer to take features from; name one in [layers], or set feature_weight 0 and leave "
                "ssp out of the kinds"
            )

    def on(self, device: torch.device, *, compiled: bool = False) -> Ensemble:
        """The same networks, moved to ``device``; ``compiled``: their answers by torch.compile."""
        placed = [replace(member, module=place(member.module, device)) for member in self.members]
        if compiled:
            placed = [replace(member, faster=torch.compile(member.module)) for member in placed]
        return Ensemble(tuple(placed))

    def logits(self, number: int, images: Tensor) -> Tensor:
        """The answer (N, classes) of member ``number``."""
        return self.members[number].logits(images)

    def features(self, number: int, images: Tensor, layer: str) -> Tensor:
        """The features of member ``number`` at ``layer``."""
        return self.members[number].features(images, layer)

    def views(self, count: int, generator: torch.Generator) -> tuple[View, ...]:
        """``count`` members drawn without replacement (0: all), each through one of its layers, drawn too."""
        order = torch.randperm(len(self.members), generator=generator).tolist()
        chosen = [self.members[number] for number in (order[:count] if count else sorted(order))]
        return tuple(View(member, _one_of(member.layers, generator)) for member in chosen)

    def distances(
        self,
        purified: Tensor,
        clean: Tensor,
        views: Sequence[View],
        *,
        answer: bool = True,
        relative: bool = True,
        mean: Mean = own,
    ) -> dict[str, Tensor]:
        """``feature`` distance and, where ``answer``, ``prediction`` shift: means over the members that have them.

        One pass of each view over ``purified``, whose gradient is kept, and one over ``clean``, whose is not.
        """
        found: dict[str, list[Tensor]] = {"feature": [], "prediction": []}
        for view in views:
            with torch.no_grad():
                features, logits = view(clean, answer=answer)
            moved, shifted = view(purified, answer=answer)
            if features is not None and moved is not None:
                distance = feature_distance(moved.float(), features.float(), relative=relative, mean=mean)
                found["feature"].append(distance)
            if logits is not None and shifted is not None:
                found["prediction"].append(prediction_shift(shifted.float(), logits.float()))
        return {name: torch.stack(values).mean() for name, values in found.items() if values}


def _one_of(layers: Sequence[str], generator: torch.Generator) -> str | None:
    if not layers:
        return None
    return layers[int(torch.randint(len(layers), (), generator=generator))]
