"""The models as the protocol shows them: every purifier, and each downstream model behind a purifier."""

from __future__ import annotations

from dataclasses import dataclass

from model_store.card import Card
from model_store.inference import STANDARD_MODES
from model_store.official import Kind
from service.engine import Engine
from service.errors import UnknownNameError
from service.v2.messages import ModelMetadata, TensorMetadata
from service.v2.outputs import Output, outputs_of
from service.v2.tensors import FLOATS, IMAGE, LEVELS

VERSION_DIGITS = 12
UNHASHED = "1"
PLATFORM = "nrp_pytorch"


@dataclass(frozen=True)
class InferenceModel:
    """A model by its name. ``version``: the beginning of its weights' sha256, so that a client can insist on them.

    ``purifier`` None: it is the downstream model of ``task``, and whichever purifier the request names goes before it.
    """

    name: str
    version: str
    purifier: Card | None
    task: Kind | None = None
    labels: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The tensors it can answer with, in the order it does where a request names none."""
        return outputs_of(self.task, len(self.labels))


def find_model(engine: Engine, name: str, version: str | None = None) -> InferenceModel:
    """The model of that name. Raises UnknownNameError, also where it is served in another version."""
    downstream = {model.name: model for model in engine.downstreams.models}
    if name in engine.purifiers:
        card = engine.purifiers[name]
        model = InferenceModel(name, _version(card.sha256), card)
    elif name in downstream:
        asked = downstream[name]
        model = InferenceModel(name, _version(asked.sha256), None, asked.kind, asked.labels)
    else:
        known = ", ".join([*sorted(engine.purifiers), *downstream])
        raise UnknownNameError(f"there is no model {name[:80]!r}; there are: {known}")
    if version is not None and version != model.version:
        raise UnknownNameError(f"{name} is served in version {model.version}, not {version[:80]!r}")
    return model


def metadata_of(model: InferenceModel) -> ModelMetadata:
    """What a client must know to use ``model``."""
    return ModelMetadata(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=[TensorMetadata(name=IMAGE, datatype=LEVELS.datatype, shape=list(LEVELS.shape))],
        outputs=[
            TensorMetadata(name=output.name, datatype=output.datatype, shape=list(output.shape))
            for output in model.outputs
        ],
        parameters=_in_words(model),
    )


def _in_words(model: InferenceModel) -> dict[str, object]:
    words: dict[str, object] = {
        IMAGE: f"RGB: {LEVELS.in_words}; or {FLOATS.in_words}",
        "seed": "parameter: image i of the request is purified with seed + i; secret and fresh by default",
        "dynamic": "parameter: true adds noise before purifying, false does not; instead of mode",
        "samples": "parameter: independent noisy draws to average; the mode's own by default",
        **{output.name: output.in_words for output in model.outputs},
    }
    if model.task == "detector":
        words["score_threshold"] = "parameter: least score of an object that is returned; 0.5 by default"
    if model.purifier is None:
        words["mode"] = "parameter: an inference mode of the purifier by name; its default mode by default"
        words["purifier"] = "parameter: the purifier that goes before; the service's default by default"
        words["labels"] = list(model.labels)
    else:
        inference = model.purifier.inference
        modes = sorted({*STANDARD_MODES, *(inference.modes if inference else ())})
        words["mode"] = (
            f"parameter: one of {', '.join(modes)}; {inference.default if inference else 'static'} by default"
        )
    return words


def _version(sha256: str) -> str:
    return sha256[:VERSION_DIGITS] or UNHASHED
