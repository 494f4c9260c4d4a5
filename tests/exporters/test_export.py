"""A tiny SpikeGPT in mixed formats as a file: ONNX Runtime says what torch says, whole, in chunks, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.export import INLINE_BYTES, ExportedGraph, export_graph
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.graph_nodes import read_workload
from exporters.ops.modules import stored_module
from exporters.ops.signatures import DOMAIN
from exporters.states import StateSpec
from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig, SpikeGptFamily

LAYERS, WIDTH, VOCABULARY = 2, 32, 40
LINEAR = ("int8", "int6-g64", "int5-g64", "int4-g32", "int3-g32", "int2-g32", "uint4-g64", "uint3-g64", "uint2-g32",
          "uint8", "fp16", "fp32", "int4", "int4-g16")  # fmt: skip
TOKENS = np.random.default_rng(5).integers(0, VOCABULARY, (1, 17))


@dataclass(frozen=True)
class Tiny:
    """A model in torch, and what was exported of it. law: bytes of all its weights by the formats' size law."""

    model: SpikeGpt
    folder: Path
    exported: ExportedGraph
    law: int


def tiny_model(rescale_every: int, embed_binarize: bool) -> SpikeGpt:
    """Random weights, large enough that a good part of the neurons spikes."""
    torch.manual_seed(3)
    model = SpikeGpt(SpikeGptConfig(LAYERS, WIDTH, 48, VOCABULARY, embed_binarize, rescale_every))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "time_mix" in name:
                parameter.uniform_(0, 1)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            else:
                parameter.normal_(0, 0.5)
    return model.eval()


def compress(model: SpikeGpt, embedding: str, head: str) -> int:
    """Exchanges every layer for one in a format of the list; returns what the size law says of all weights."""
    total = 4 * sum(p.numel() for p in model.parameters() if p.ndim != 2)
    linear = iter(LINEAR)
    for layer in SpikeGptFamily().tree(model).layers:
        fmt = format_named({"emb": embedding, "head": head}.get(layer.path) or next(linear))
        weight = model.get_parameter(f"{layer.path}.weight").detach().numpy()
        model.set_submodule(layer.path, stored_module(fmt.encode(weight), layer.kind))
        total += bytes_for(fmt, layer.rows, layer.cols)
    assert next(linear, None) is None
    return total


@pytest.fixture(
    scope="module",
    params=[(0, True, "sign", "int4-g32"), (1, False, "uint5-g16", "fp32")],
    ids=["binarised", "rescaled"],
)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    rescale_every, embed_binarize, embedding, head = request.param
    model = tiny_model(rescale_every, embed_binarize)
    law = compress(model, embedding, head)
    folder = tmp_path_factory.mktemp("exported")
    return Tiny(model, folder, export_graph(model, model.state_specs(), folder, law, head="head"), law)


def expected(model: SpikeGpt, tokens: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    with torch.no_grad():
        logits, after = model(torch.from_numpy(tokens), model.initial_state())
    return logits.numpy(), [s.numpy() for s in after]


class Runner:
    """The graph in ONNX Runtime, its states carried from call to call."""

    def __init__(self, folder: Path, exported: ExportedGraph, library: str | None = None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        if library:
            options.register_custom_ops_library(library)
        path = str(folder / "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.io = exported.io
        self.state = [np.full(s.shape, s.fill, s.dtype) for s in self.io.states]

    def __call__(self, tokens: np.ndarray, first: int = 0) -> np.ndarray:
        states = {s.input: value for s, value in zip(self.io.states, self.state, strict=True)}
        names = [self.io.logits, *(s.output for s in self.io.states)]
        asked = {self.io.logits_from: np.array([first])} if self.io.logits_from else {}
        logits, *self.state = self.session.run(names, {self.io.tokens: tokens, **asked, **states})
        return logits


@pytest.fixture(params=["stock", "native"])
def runner(request: pytest.FixtureRequest, tiny: Tiny) -> Runner:
    library = request.getfixturevalue("native_path") if request.param == "native" else None
    return Runner(tiny.folder, tiny.exported, library)


# --- it says what torch says -----------------------------------------------------------------------------------------


def test_the_model_is_worth_comparing(tiny):
    """Neurons fire and rest, and the past changes what comes next: otherwise agreement would say little."""
    logits, after = expected(tiny.model, TOKENS)
    membranes = np.concatenate(
        [s for s, spec in zip(after, tiny.model.state_specs(), strict=True) if "membr" in spec.name]
    )
    assert 0.02 < (membranes == 0).mean() < 0.9
    alone, _ = expected(tiny.model, TOKENS[:, -1:])
    assert np.abs(logits[:, -1] - alone[:, -1]).max() > 0.1


CUTS = {"one call": [], "two chunks": [5], "uneven chunks": [1, 8, 9], "token by token": list(range(1, 17))}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_logits_and_states_are_those_of_torch(tiny, runner, cuts):
    logits, states = expected(tiny.model, TOKENS)
    found = np.concatenate([runner(part) for part in np.split(TOKENS, cuts, axis=1)], 1)
    assert found.shape == (1, 17, VOCABULARY) and found.dtype == np.float32
    np.testing.assert_allclose(found, logits, atol=1e-4)
    for state, wanted in zip(runner.state, states, strict=True):
        np.testing.assert_allclose(state, wanted, atol=1e-4)


def test_the_past_is_in_the_states_alone(tiny, runner):
    first = runner(TOKENS[:, :3])
    runner.state = [np.full(s.shape, s.fill, s.dtype) for s in runner.io.states]
    np.testing.assert_array_equal(runner(TOKENS[:, :3]), first)


def test_every_body_has_a_name_of_its_own(tiny):
    model = onnx.load(tiny.folder / "model.onnx", load_external_data=False)
    names = [function.name for function in model.functions]
    assert len(set(names)) == len(names) and all(not node.overload for node in model.graph.node)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert {node.op_type for node in nodes if node.domain == DOMAIN} == set(names)
    assert tiny.exported.io.bodies == sum(name.startswith("QLinear") for name in names) > 3
    assert tiny.exported.io.fused == sum(name.startswith("Fused") for name in names) > 1


def test_native_kernels_are_used_where_registered(tiny, native_path, tmp_path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.register_custom_ops_library(native_path)
    ort.InferenceSession(str(tiny.folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    kept = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node
    given = onnx.load(tiny.folder / "model.onnx", load_external_data=False).graph.node
    ours = [sorted(n.op_type for n in nodes if n.domain == DOMAIN) for nodes in (given, kept)]
    assert ours[0] == ours[1]
    per_block = ("ShiftMix3", "GatedWkv", "SpikeAdd", "ShiftMix2", "SquaredRelu", "GatedSpikeAdd")
    steps = [n.operator for n in read_workload(tiny.folder / "model.onnx").nodes]
    assert all(steps.count(name) == LAYERS for name in per_block) and "Fused" in ours[0]


class Counting(nn.Module):
    """logits = sum of the rows of all tokens so far, plus the state; a float16 table and nothing else."""

    LAW = 50 * 3 * 2

    def __init__(self) -> None:
        super().__init__()
        table = np.arange(150, dtype=np.float32).reshape(50, 3) / 4
        self.table = stored_module(format_named("fp16").encode(table), "embedding")

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        totals = self.table(tokens).cumsum(1) + state[0]
        return totals, [totals[:, -1]]


def test_a_model_by_hand(tmp_path):
    """Rows 0, 2, 1 of k / 4: 0 .25 .5; 1.5 1.75 2; .75 1 1.25; the state starts at 10."""
    exported = export_graph(Counting(), [StateSpec("total", (3,), 10.0)], tmp_path, Counting.LAW)
    assert (exported.data_bytes, exported.io.states[0].fill) == (300, 10.0)
    run = Runner(tmp_path, exported)
    np.testing.assert_array_equal(run(np.array([[0, 2]])), [[[10, 10.25, 10.5], [11.5, 12, 12.5]]])
    np.testing.assert_array_equal(run(np.array([[1]])), [[[12.25, 13, 13.75]]])
    np.testing.assert_array_equal(run.state, [[[12.25, 13, 13.75]]])


@pytest.mark.parametrize(("first", "rows"), [(0, slice(0, 9)), (-1, slice(8, 9)), (-3, slice(6, 9)), (7, slice(7, 9))])
def test_logits_of_those_tokens_that_are_asked_for(runner, tiny, first, rows):
    tokens = np.arange(9)[None] * 7 % VOCABULARY
    every, states = runner(tokens), runner.state
    runner.state = [np.full(s.shape, s.fill, s.dtype) for s in runner.io.states]
    np.testing.assert_allclose(runner(tokens, first), every[:, rows], rtol=1e-5, atol=1e-5)
    for one, other in zip(runner.state, states, strict=True):
        np.testing.assert_array_equal(one, other)


# --- the files -------------------------------------------------------------------------------------------------------


def test_inputs_and_outputs(tiny):
    graph = onnx.load(tiny.folder / "model.onnx", load_external_data=False).graph
    kinds = {v.name: v.type.tensor_type for v in (*graph.input, *graph.output)}
    shapes = {n: [d.dim_param or d.dim_value for d in k.shape.dim] for n, k in kinds.items()}
    names = [
        f"blocks.{i}.{name}"
        for i in range(LAYERS)
        for name in ("att_shift", "wkv_numerator", "wkv_denominator", "wkv_exponent", "att_membrane", "ffn_shift",
                     "ffn_membrane")
    ]  # fmt: skip
    assert [v.name for v in graph.input] == ["tokens", *(f"state.{n}" for n in names), "logits_from"]
    assert [v.name for v in graph.output] == ["logits", *(f"next.{n}" for n in names)]
    time = shapes["tokens"][1]
    assert isinstance(time, str)  # any number of tokens, and as many logits
    assert shapes["tokens"] == [1, time] and shapes["logits_from"] == [1]
    assert [shapes["logits"][0], shapes["logits"][2]] == [1, VOCABULARY]
    assert isinstance(shapes["logits"][1], str) and shapes["logits"][1] != time
    assert kinds["tokens"].elem_type == kinds["logits_from"].elem_type == TensorProto.INT64
    assert all(shapes[f"{kind}.{n}"] == [1, WIDTH] for kind in ("state", "next") for n in names)
    assert {k.elem_type for n, k in kinds.items() if n not in ("tokens", "logits_from")} == {TensorProto.FLOAT}
    states = tiny.exported.io.states
    assert [s.input for s in states] == [v.name for v in graph.input][1:-1]
    assert [s.output for s in states] == [v.name for v in graph.output][1:]


def test_the_data_file_holds_the_weights_and_nothing_else(tiny):
    tensors = [*tiny.model.buffers(), *tiny.model.parameters()]
    assert sum(t.nbytes for t in tensors) == tiny.law
    model = onnx.load(tiny.folder / "model.onnx", load_external_data=False)
    inside = [len(t.raw_data) for t in model.graph.initializer if t.data_type != TensorProto.INT64 and t.dims]
    assert max(inside) <= INLINE_BYTES
    data = tiny.folder / "model.onnx.data"
    assert data.stat().st_size == tiny.exported.data_bytes == tiny.law - sum(inside)
    assert (tiny.folder / "model.onnx").stat().st_size == tiny.exported.graph_bytes
    assert sorted(p.name for p in tiny.folder.iterdir()) == ["model.onnx", "model.onnx.data"]


def external(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, dict[str, str]]]:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor, {entry.key: entry.value for entry in tensor.external_data}


def test_weights_lie_where_they_can_be_mapped(tiny):
    """Each at a multiple of its element's size, none over another, all in the one file beside the graph."""
    end = 0
    model = onnx.load(tiny.folder / "model.onnx", load_external_data=False)
    for tensor, entry in sorted(external(model), key=lambda e: int(e[1]["offset"])):
        assert entry["location"] == "model.onnx.data"
        offset, length = int(entry["offset"]), int(entry["length"])
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        assert offset % itemsize == 0 and offset >= end
        end = offset + length
    assert end == tiny.exported.data_bytes


def test_packed_tensors_are_in_the_file_as_packed(tiny):
    data = (tiny.folder / "model.onnx.data").read_bytes()
    model = onnx.load(tiny.folder / "model.onnx", load_external_data=False)
    stored = {t.name: data[int(e["offset"]) :][: int(e["length"])] for t, e in external(model)}
    for name in ("blocks.0.att.key.codes", "blocks.0.att.receptance.codes", "blocks.1.att.output.weight"):
        buffer = dict(tiny.model.named_buffers()).get(name)
        if buffer is not None:
            assert stored[name] == buffer.numpy().tobytes()
    assert stored["blocks.0.att.key.codes"]


def test_the_graph_is_valid_and_says_nothing_of_the_machine(tiny):
    onnx.checker.check_model(str(tiny.folder / "model.onnx"))
    raw = (tiny.folder / "model.onnx").read_bytes()
    for trace in (b"site-packages", b".py", str(Path(__file__).parents[2]).encode(), b"_FlatState"):
        assert trace not in raw


# --- what cannot be exported -----------------------------------------------------------------------------------------


def test_another_size_than_the_law_says(tmp_path):
    with pytest.raises(SlmcError, match=f"the graph holds {Counting.LAW} bytes of weights, the size law says 3000"):
        export_graph(Counting(), [StateSpec("total", (3,))], tmp_path, 3000)
    assert not list(tmp_path.iterdir())
