from __future__ import annotations

import argparse
import copy
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model_store.card import Card, InputConvention
from model_store.commands import configure_models, run_models
from model_store.errors import IncompatibleWeightsError, UnavailableModelError
from model_store.store import ModelStore, card_text

SEGMENTER = "(float[N,3,H,W] images) => (float[N,3,H,W] logits) { logits = Identity (images) }"
CLASSIFIER = """(float[N,3,H,W] images) => (float[N,3] logits)
{ means = GlobalAveragePool (images)  logits = Flatten (means) }"""
BOX = "float[1,4] boxes = {0, 0, 2, 2}"
DETECTOR = f"""(float[3,H,W] image) => (float[K,4] boxes, int64[K] labels, float[K] scores)
<{BOX}, int64[1] labels = {{1}}>
{{
  brightest = ReduceMax <keepdims = 0> (image)
  one = Constant <value_ints = [1]> ()
  scores = Reshape (brightest, one)
}}"""
BATCHED = """(float[N,3,H,W] images) => (float[N,2,4] boxes, float[N,2] scores, int64[N,2] labels)
<float[1,2,4] corners = {0, 0, 1, 1, 0, 0, 0, 0}, int64[1,2] numbers = {1, -1}>
{
  brightest = ReduceMax <axes = [1, 2, 3], keepdims = 0> (images)
  column = Unsqueeze (brightest, ends_one)
  scores = Concat <axis = 1> (column, column)
  shape = Shape (scores)
  labels = Expand (numbers, shape)
  three = Concat <axis = 0> (shape, four)
  boxes = Expand (corners, three)
}"""


def program(graph: str, opset: int = 17, functions: str = "", imports: str = "") -> onnx.ModelProto:
    text = f'<ir_version: 9, opset_import: ["" : {opset}{imports}]>\nnetwork {graph}\n{functions}'
    return onnx.parser.parse_model(text)


def batched_detector() -> bytes:
    model = program(BATCHED)
    for name, values in (("ends_one", [1]), ("four", [4])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return bytes(model.SerializeToString())


def saved(graph: str) -> bytes:
    return bytes(program(graph).SerializeToString())


@pytest.fixture
def card(make_card: Callable[..., Card]) -> Callable[..., Card]:
    def make(task: str = "segmenter", **changes: Any) -> Card:
        stated = {} if task == "detector" else {"output": "logits"}  # these graphs give pixels, which lie in [0,1]
        facts = {"labels": ("a", "b", "c"), "arguments": {}} | stated | changes
        return make_card(name="shades", task=task, architecture="onnx", **facts)

    return make


def loaded(store: ModelStore, card: Card, data: bytes) -> Any:
    store.publish_program(card, data, replace=True)
    return store.load("shades").module


def test_a_segmenter_of_free_size_answers_as_its_graph(store: ModelStore, card: Callable[..., Card]) -> None:
    data = saved(SEGMENTER)
    module = loaded(store, card(), data)
    assert (store.root / "shades" / "program.onnx").read_bytes() == data
    assert (module.size, module.single) == (None, False)
    images = torch.rand(2, 3, 5, 7)
    with torch.inference_mode():
        assert torch.equal(module.eval()(images.contiguous(memory_format=torch.channels_last)), images)


def test_a_classifier_of_one_image_and_size_says_so_and_takes_a_batch_in_turns(
    store: ModelStore, card: Callable[..., Card]
) -> None:
    fixed = CLASSIFIER.replace("[N,3,H,W]", "[1,3,6,8]").replace("[N,3]", "[1,3]")
    module = loaded(store, card("classifier"), saved(fixed))
    assert (module.size, module.single) == ((6, 8), True)
    images = torch.rand(3, 3, 6, 8)
    assert torch.allclose(module(images), images.mean(dim=(2, 3)), atol=1e-6)


def test_what_pytorch_exports_is_read(store: ModelStore, card: Callable[..., Card]) -> None:
    """The exporter that needs nothing but PyTorch; it is deprecated, not gone."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        axes = {"images": {0: "n", 2: "h", 3: "w"}, "logits": {0: "n"}}
        names = {"input_names": ["images"], "output_names": ["logits"]}
        torch.onnx.export(network, (torch.rand(1, 3, 9, 9),), out, dynamo=False, dynamic_axes=axes, **names)
    module = loaded(store, card("classifier"), out.getvalue())
    images = torch.rand(2, 3, 11, 7)
    with torch.inference_mode():
        assert torch.allclose(module(images), network(images), atol=1e-5)


def test_a_detector_of_one_image_is_asked_one_by_one(store: ModelStore, card: Callable[..., Card]) -> None:
    module = loaded(store, card("detector"), saved(DETECTOR))
    assert module.single
    images = torch.stack([torch.full((3, 4, 4), level) for level in (0.25, 0.75)])
    first, second = module(images)
    assert first["boxes"].tolist() == [[0, 0, 2, 2]]
    assert [float(found["scores"]) for found in (first, second)] == [0.25, 0.75]
    assert first["labels"].tolist() == [1]


def test_a_detector_of_batches_is_asked_once_and_its_padding_dropped(
    store: ModelStore, card: Callable[..., Card]
) -> None:
    module = loaded(store, card("detector"), batched_detector())
    assert not module.single
    found = module(torch.stack([torch.full((3, 4, 4), level) for level in (0.25, 0.75)]))
    assert [one["labels"].tolist() for one in found] == [[1], [1]]
    assert [one["scores"].tolist() for one in found] == [[0.25], [0.75]]
    assert found[0]["boxes"].tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("task", "graph", "named"),
    [
        ("segmenter", SEGMENTER.replace("[N,3,H,W] images", "[2,3,H,W] images"), "exactly 2 images"),
        ("segmenter", SEGMENTER.replace("[N,3,H,W] images", "[N,3,6,W] images"), "both fixed or both free"),
        ("segmenter", SEGMENTER.replace("float", "uint8"), "one float tensor"),
        ("segmenter", SEGMENTER.replace("[N,3,H,W]", "[N,4,H,W]"), "one float tensor"),
        ("classifier", SEGMENTER, "rank 2"),
        ("segmenter", "(float[N,3,H,W] a, float[N,3,H,W] b) => (float[N,3,H,W] c) { c = Add (a, b) }", "one float"),
        (
            "segmenter",
            SEGMENTER.replace("float[N,3,H,W] logits)", "float[N,3,H,W] logits, float[N,3,H,W] images)"),
            "one",
        ),
        ("detector", SEGMENTER, "boxes, scores and labels"),
        ("detector", DETECTOR.replace("scores", "confidence"), "boxes, scores and labels"),
    ],
)
def test_a_program_that_does_not_serve_its_task_is_refused_when_it_is_read(
    store: ModelStore, card: Callable[..., Card], task: str, graph: str, named: str
) -> None:
    with pytest.raises(IncompatibleWeightsError, match=named) as failure:
        store.publish_program(card(task), saved(graph))
    assert "\n" not in str(failure.value)
    assert store.names() == []


def test_a_card_of_another_number_of_labels_is_refused(store: ModelStore, card: Callable[..., Card]) -> None:
    with pytest.raises(IncompatibleWeightsError, match="logits of 2 labels"):
        store.publish_program(card("classifier", labels=("a", "b")), saved(CLASSIFIER))


def external(where: str) -> onnx.ModelProto:
    """A model with a tensor in another file: as an initializer, or deep inside."""
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    model = program(SEGMENTER)
    if where == "initializer":
        model.graph.initializer.append(tensor)
    elif where == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))
    else:
        inner = helper.make_graph([], "inner", [], [], initializer=[tensor])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
    return model


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_tensors_in_other_files_are_refused_before_anything_runs(
    store: ModelStore, card: Callable[..., Card], where: str
) -> None:
    with pytest.raises(IncompatibleWeightsError, match="'outside' in another file"):
        store.publish_program(card(), bytes(external(where).SerializeToString()))


def test_custom_operators_are_refused_and_the_file_s_own_functions_are_not(
    store: ModelStore, card: Callable[..., Card]
) -> None:
    graph = SEGMENTER.replace("Identity", "mine.Copy")
    imports = ', "mine" : 1'
    with pytest.raises(IncompatibleWeightsError, match=r"mine\.Copy"):
        store.publish_program(card(), bytes(program(graph, imports=imports).SerializeToString()))
    inner = '<domain: "mine", opset_import: ["" : 17, "theirs" : 1]> Copy (x) => (y) { y = %s (x) }'
    model = program(graph, imports=imports, functions=inner % "Identity")
    module = loaded(store, card(), bytes(model.SerializeToString()))
    assert float(module(torch.ones(1, 3, 2, 2)).mean()) == 1
    model = program(graph, imports=imports, functions=inner % "theirs.Copy")
    with pytest.raises(IncompatibleWeightsError, match=r"theirs\.Copy"):
        store.publish_program(card(), bytes(model.SerializeToString()), replace=True)


def test_gradients_are_not_made_up(store: ModelStore, card: Callable[..., Card]) -> None:
    module = loaded(store, card(), saved(SEGMENTER))
    with pytest.raises(IncompatibleWeightsError, match="gradients"):
        module(torch.rand(1, 3, 4, 4, requires_grad=True))


def test_a_copy_runs_the_same_session(store: ModelStore, card: Callable[..., Card]) -> None:
    module = loaded(store, card(), saved(SEGMENTER))
    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(copy.deepcopy(module)(images), module(images))


def test_it_runs_on_as_many_threads_as_pytorch_does(
    store: ModelStore, card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    module = loaded(store, card(), saved(SEGMENTER))
    options = module.network._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)


@pytest.mark.parametrize("missing", ["onnxruntime", "onnx"])
def test_without_onnx_runtime_the_error_says_what_to_install(
    store: ModelStore, card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UnavailableModelError, match=r"pip install 'nrp\[onnx\]'") as failure:
        store.publish_program(card(), saved(SEGMENTER))
    assert missing in str(failure.value)


def test_nrp_models_publish_takes_a_folder_of_one(
    store: ModelStore, card: Callable[..., Card], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "from" / "shades"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(card_text(card()))
    (folder / "program.onnx").write_bytes(saved(SEGMENTER))
    parser = argparse.ArgumentParser()
    configure_models(parser)
    assert run_models(parser.parse_args(["publish", str(folder), "--store", str(store.root)])) == 0
    assert "sha256" in capsys.readouterr().out
    assert isinstance(store.load("shades").module(torch.rand(1, 3, 2, 2)), Tensor)


CHANNELS_LAST = """(float[N,6,8,3] images) => (float[N,3] logits)
{ means = ReduceMean <axes = [1, 2], keepdims = 0> (images)  logits = Identity (means) }"""


def test_a_program_with_the_channels_last_gets_them_so(store: ModelStore, card: Callable[..., Card]) -> None:
    convention = InputConvention(layout="NHWC", colour="BGR", high=255.0, mean=(1, 2, 3))
    module = loaded(store, card("classifier", input=convention), saved(CHANNELS_LAST))
    assert (module.size, module.single) == ((6, 8), False)
    images = torch.rand(2, 3, 6, 8)
    expected = 255 * images.mean(dim=(2, 3)).flip(1) - torch.tensor([1.0, 2, 3])
    torch.testing.assert_close(module(images), expected)


def test_a_program_with_the_channels_last_is_told_what_to_say(store: ModelStore, card: Callable[..., Card]) -> None:
    with pytest.raises(IncompatibleWeightsError, match="say layout NHWC in its card's input"):
        store.publish_program(card("classifier"), saved(CHANNELS_LAST))
    with pytest.raises(IncompatibleWeightsError, match=r"images \(N, H, W, 3\)"):
        store.publish_program(card("classifier", input=InputConvention(layout="NHWC")), saved(CLASSIFIER))


GRID = """(float[1,3,8,8] images) => (float[1,8,2,2] grid)
<float[1,8,2,2] cells = {{{cells}}}, float[1] none = {{0}}>
{{ nothing = Mul (images, none)  zero = ReduceMax <keepdims = 0> (nothing)  grid = Add (cells, zero) }}"""


def test_a_decoder_of_the_card_makes_boxes_of_a_detector_s_grid(store: ModelStore, card: Callable[..., Card]) -> None:
    cells = torch.zeros(8, 2, 2)
    cells[0, 1, 0], cells[7, 1, 0] = 0.5, 0.25  # one thing of class 2, centred on the corner of the lower left cell
    graph = GRID.format(cells=", ".join(f"{value}" for value in cells.flatten().tolist()))
    module = loaded(store, card("detector", output="fastestdet"), saved(graph))
    assert (module.size, module.single) == ((8, 8), True)
    (found,) = module(torch.rand(1, 3, 8, 8))
    assert found["boxes"].tolist() == [[0, 2, 2, 6]]  # half as wide and high as the image, cut at its edge
    assert found["scores"].tolist() == pytest.approx([0.5**0.6 * 0.25**0.4])
    assert found["labels"].tolist() == [2]
    with pytest.raises(IncompatibleWeightsError, match="fastestdet of 2 labels: of rank 4, with 7 in dimension 1"):
        store.publish_program(card("detector", output="fastestdet", labels=("a", "b")), saved(graph), replace=True)


def test_an_attacker_s_gradient_is_refused_with_what_to_do_instead(
    store: ModelStore, card: Callable[..., Card]
) -> None:
    module = loaded(store, card("classifier"), saved(CLASSIFIER))
    with pytest.raises(
        IncompatibleWeightsError, match=r"by transfer \(SSP, a surrogate\) or by score \(Square\)"
    ) as failure:
        module(torch.rand(1, 3, 4, 4, requires_grad=True))
    assert "'shades'" in str(failure.value)
    assert "\n" not in str(failure.value)
