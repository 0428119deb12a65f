"""A plan: trainings in order, with everything that a machine without a store needs to run them.

PLAN.json lists the stages, each a kind and its whole recipe, and the store's models that they build on, whose weights
(half precision) lie in a folder beside it; of a feature network, only the blocks that are read. A stage may build on an
earlier one by naming its recipe.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from model_store.architectures import ARCHITECTURES, build
from model_store.architectures.vgg_features import CONV3_3, VGG16Features
from model_store.errors import UnknownArchitectureError
from training.errors import RecipeError
from training.purifier_recipe import PurifierRecipe
from training.recipe import Recipe, recipe_from_json, recipe_json
from training.stages import SCHEMAS, Network, Networks, needs

VERSION = 1
KIND_OF_TASK = (("classifier", "classifier"), ("feature-network", "feature-net"), ("purifier", "purifier"))


@dataclass(frozen=True)
class Planned:
    """One stage: its kind (``classifier``, ``feature-net`` or ``purifier``) and its recipe."""

    kind: str
    recipe: Recipe

    @property
    def name(self) -> str:
        """What later stages call it, and the name it will be published under."""
        return self.recipe.name


@dataclass(frozen=True)
class Plan:
    """The stages in order, and the models of the store that they build on, by name."""

    stages: tuple[Planned, ...]
    models: Mapping[str, Network] = field(repr=False)
    code_revision: str


def kind_of(recipe: Mapping[str, Any]) -> str:
    """The kind of a recipe's table, which its architecture tells. Raises RecipeError for one that no stage trains."""
    name = recipe.get("architecture", "")
    task = ARCHITECTURES[name].task if name in ARCHITECTURES else ""
    kinds = dict(KIND_OF_TASK)
    if task not in kinds:
        raise RecipeError(f"architecture {name!r} is none that a plan trains; plans take {', '.join(kinds)} recipes")
    return kinds[task]


def write_plan(stages: Sequence[Planned], networks: Networks, output: Path, *, code_revision: str) -> Plan:
    """Write the plan and, beside it, the models that no earlier stage makes. Raises RecipeError, UnknownModelError."""
    names = [stage.name for stage in stages]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise RecipeError(f"two stages are called {double!r}; give one of the recipes another name")
    wanted: dict[str, Network] = {}
    for number, stage in enumerate(stages):
        for name in needs(stage.recipe):
            if name in names[number:]:
                raise RecipeError(
                    f"{stage.name!r} builds on {name!r}, which is not trained before it; change the order"
                )
            if name not in names:
                wanted[name] = networks(name)
    output.parent.mkdir(parents=True, exist_ok=True)
    carried = {name: trimmed(network, _layers_of(name, stages)) for name, network in wanted.items()}
    models = bundle(carried, output.parent / f"{output.stem}-models")
    listed = [{"kind": stage.kind, "recipe": recipe_json(stage.recipe)} for stage in stages]
    plan = {"version": VERSION, "code_revision": code_revision, "stages": listed, "models": models}
    output.write_text(json.dumps(plan, indent=2) + "\n")
    return Plan(tuple(stages), wanted, code_revision)


def bundle(networks: Mapping[str, Network], folder: Path) -> dict[str, Any]:
    """Write the weights of ``networks`` into ``folder``, in half precision. Gives what ``unbundle`` needs, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _bundled(name, network, folder) for name, network in networks.items()}


def _bundled(name: str, network: Network, folder: Path) -> dict[str, Any]:
    path = folder / f"{name.replace(':', '-')}.safetensors"
    data = halved(network.module)
    path.write_bytes(data)
    return {
        "architecture": network.architecture,
        "arguments": dict(network.arguments),
        "task": network.task,
        "identity": network.identity,
        "weights": f"{folder.name}/{path.name}",
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def trimmed(network: Network, layers: Collection[str]) -> Network:
    """``network`` without what no one needs who reads ``layers`` alone: the blocks of a VGG-16 behind the deepest.

    Five blocks take 29 MB in half precision, three 3.5 MB. What is left gives the same, so its identity stays. With a
    layer that is not in ``features``, or a network that is no VGG-16 beyond conv3-3, nothing is left out.
    """
    if not isinstance(network.module, VGG16Features) or not network.module.deeper:
        return network
    found = [re.fullmatch(r"features\.(\d+)", layer) for layer in layers]
    deepest = max((int(place[1]) for place in found if place), default=0)
    lengths = {blocks: len(VGG16Features(None, 1 / 64, blocks).features) for blocks in (3, 4, 5)}
    enough = [blocks for blocks, length in lengths.items() if deepest < length]
    if not enough or not all(found):
        return network
    arguments = {**network.arguments, "blocks": enough[0]}
    module = build(network.architecture, arguments)
    wanted = module.state_dict().keys()
    module.load_state_dict({name: value for name, value in network.module.state_dict().items() if name in wanted})
    return replace(network, module=module.eval().requires_grad_(False), arguments=arguments)


def _layers_of(name: str, stages: Sequence[Planned]) -> set[str]:
    """The layers of network ``name`` that any stage reads; conv3-3 where it does not say."""
    recipes = [stage.recipe for stage in stages if isinstance(stage.recipe, PurifierRecipe)]
    return {layer for recipe in recipes if name in recipe.members for layer in recipe.layers.get(name, (CONV3_3,))}


def halved(module: nn.Module) -> bytes:
    """The weights of ``module`` as a safetensors file in half precision."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    return safetensors.torch.save({name: v.half() if v.is_floating_point() else v for name, v in state.items()})


def read_plan(path: Path) -> Plan:
    """The plan and its models, read without pydantic. Raises RecipeError where a part is missing or not as written."""
    try:
        plan = json.loads(path.read_text())
        version, stages, models = plan["version"], plan["stages"], plan["models"]
        if version != VERSION:
            raise RecipeError(f"{path} is a plan of version {version}; write it again with `nrp train plan`")
        planned = tuple(Planned(s["kind"], recipe_from_json(SCHEMAS[s["kind"]], s["recipe"])) for s in stages)
        return Plan(planned, unbundle(models, path.parent), str(plan["code_revision"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{path} is no plan ({type(error).__name__}: {error}); write one with `nrp train plan`"
        ) from error


def planned_names(path: Path) -> tuple[str, ...]:
    """The names of a plan's stages, without reading its models. Raises RecipeError."""
    try:
        return tuple(str(stage["recipe"]["name"]) for stage in json.loads(path.read_text())["stages"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no plan ({type(error).__name__}); write one with `nrp train plan`") from error


def unbundle(models: Mapping[str, Any], folder: Path) -> dict[str, Network]:
    """What ``bundle`` wrote into a folder in ``folder``, frozen. Raises RecipeError where a part is not as written."""
    return {name: _unbundled(name, model, folder) for name, model in models.items()}


def _unbundled(name: str, model: Mapping[str, Any], folder: Path) -> Network:
    try:
        data = (folder / model["weights"]).read_bytes()
    except OSError as error:
        raise RecipeError(f"the plan's model {name!r} is missing ({error}); copy the folder beside the plan") from error
    if hashlib.sha256(data).hexdigest() != model["sha256"]:
        raise RecipeError(f"{folder / model['weights']} is not what the plan was written with; copy it again")
    module = filled(model["architecture"], model["arguments"], data)
    return Network(module, model["identity"], model["task"], model["architecture"], model["arguments"])


def filled(architecture: str, arguments: Mapping[str, Any], data: bytes) -> nn.Module:
    """A frozen module of ``architecture``, its weights out of a safetensors file. Raises RecipeError where none fit."""
    try:
        state: dict[str, Tensor] = safetensors.torch.load(data)
        module = build(architecture, arguments)
        module.load_state_dict(state)
    except (SafetensorError, RuntimeError, UnknownArchitectureError) as error:
        first = str(error).splitlines()[0]
        raise RecipeError(f"weights do not fit {architecture!r}: {first}; write the plan with this version") from error
    return module.to(torch.float32).eval().requires_grad_(False)
