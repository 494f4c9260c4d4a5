"""One walk through the catalogue: every kind of format answers every question that is asked of a format."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from products import Product
from torch import Tensor

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.native_library import library_path
from exporters.export import export_graph
from exporters.formats.base import Encoded, Format, bytes_for
from exporters.formats.catalog import KINDS, SEARCHED, SEARCHED_SPARSE, SIGN, format_named, is_format
from exporters.formats.families import DENSE, SPARSE
from exporters.graph_nodes import read_workload
from exporters.ops.modules import stored_module
from exporters.states import StateSpec
from targets.device.session import session_options
from toolchain.compress.catalog import METHODS, compress, method_for, method_takes
from toolchain.compress.recipe import LayerConfig
from toolchain.study.formulas import terms
from toolchain.tuning.corrected import parametrization_for

EXAMPLES = ("fp32", "fp16", "sign", "ternary", "int8", "int4-g64", "int3-g64", "uint4-g64", "int5", "event/int4-g64",
            "event/uint3-g64", "diag+int4-g64", "lr4+int3-g64", "fp4-g16", "2:4/int4-g64", "4:8x16/int4-g64",
            "6:8/fp4-g16", "1:8/int8+6:8/fp4-g16", "ternary-g64", "nl4-g64", "nl3-g64")  # fmt: skip
"""Of every kind one at least."""

SIZE = 64
walk = pytest.mark.parametrize("name", EXAMPLES)


def matrix() -> Tensor:
    return 0.1 * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def hessian() -> Tensor:
    x = torch.randn(400, SIZE, generator=torch.Generator().manual_seed(1))
    return x.T @ x / 400


def stored(name: str) -> tuple[Format, Encoded]:
    fmt = format_named(name)
    return fmt, fmt.encode(matrix().numpy())


def test_there_is_an_example_of_every_kind() -> None:
    assert {type(format_named(name)) for name in EXAMPLES} == set(KINDS)


def test_nobody_decides_by_the_class_of_a_format() -> None:
    names = "|".join(kind.__name__ for kind in KINDS)
    decides = re.compile(rf"isinstance\([^)]*\b({names})\b|\bcase ({names})\b")
    root = Path(__file__).parents[2]
    files = [f for floor in ("exporters", "targets", "toolchain", "benchmarks") for f in (root / floor).rglob("*.py")]
    assert len(files) > 200
    found = [f.name for f in files if "formats" not in f.parts and decides.search(f.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("name", dict.fromkeys((*EXAMPLES, *(f.name for f in (*SEARCHED, *SEARCHED_SPARSE)))))
def test_its_name_is_read_as_it_is_written_by_one_kind_alone(name: str) -> None:
    found = [f for kind in KINDS if (f := _read(kind, name))]
    assert [f.name for f in found] == [name] and format_named(name) == found[0]
    assert not is_format(name + "-") and not is_format("+" + name)


def _read(kind: type[Format], name: str) -> Format | None:
    try:
        return kind.named(name, format_named)
    except SlmcError:
        return None


@walk
def test_size_law_and_round_trip(name: str) -> None:
    fmt, encoded = stored(name)
    assert {n: (p.shape, p.dtype) for n, p in encoded.packed.items()} == {
        n: (p.shape, p.dtype) for n, p in fmt.layout_for(SIZE, SIZE).items()
    }
    assert encoded.nbytes == bytes_for(fmt, SIZE, SIZE) and fmt.takes(SIZE, SIZE)
    decoded = fmt.decode(encoded)
    plain = fmt.plain.encode(matrix().numpy())
    assert decoded.shape == (SIZE, SIZE)
    np.testing.assert_array_equal(fmt.decode(fmt.from_plain(plain)), decoded)
    np.testing.assert_array_equal(fmt.plain.decode(plain), decoded)
    error = np.square(decoded - matrix().numpy()).mean() / np.square(matrix().numpy()).mean()
    assert error < (200 if fmt == SIGN else 0.6)
    summed = sum((f.decode(part) for f, part in fmt.summands(encoded)), np.zeros(()))
    np.testing.assert_allclose(summed, decoded, atol=1e-6)


@walk
def test_parts_say_what_is_stored(name: str) -> None:
    fmt, encoded = stored(name)
    pieces = fmt.split(encoded)
    assert len(pieces) == len(fmt.parts) == len(terms(name, SIZE)) or not fmt.parts
    total = np.zeros((SIZE, SIZE))
    for part, piece in zip(fmt.parts, pieces, strict=True):
        per_period = piece.mask.reshape(SIZE, -1, part.period).sum(-1)
        assert per_period.max() <= part.kept and piece.values == part.values
        assert fmt.patterned == any(p.kept < p.period for p in fmt.parts)
        total += piece.mask
    assert total.max() <= 1
    assert (fmt.family == DENSE) != (fmt.family in SPARSE)


@walk
@pytest.mark.parametrize("method", [m.name for m in METHODS])
def test_the_methods_that_can_reach_it_do(name: str, method: str) -> None:
    fmt = format_named(name)
    assert method_takes(method_for(method, fmt, linear=True), fmt) or not fmt.parts
    config = LayerConfig(name, method_for(method, fmt, linear=True))
    encoded = compress(matrix(), config, hessian(), torch.ones(SIZE))
    assert encoded.format == name and encoded.nbytes == bytes_for(fmt, SIZE, SIZE)


@walk
def test_a_step_of_training_brings_it_nearer(name: str) -> None:
    """To another matrix; what has no parts learns nothing."""
    fmt, encoded = stored(name)
    if not fmt.parts:
        assert fmt.split(encoded) == ()
        return
    wanted = 1.3 * matrix()
    parametrization = parametrization_for(encoded, matrix())
    np.testing.assert_allclose(parametrization().detach().numpy(), fmt.decode(encoded), atol=1e-5)
    before = float((parametrization().detach() - wanted).square().sum())
    optimiser = torch.optim.Adam([parametrization.latent, *parametrization.scales], lr=2e-3)
    for _ in range(15):
        optimiser.zero_grad()
        (parametrization() - wanted).square().sum().backward()
        optimiser.step()
    after = parametrization.stored()
    assert after.format == name and after.nbytes == encoded.nbytes
    assert float((torch.from_numpy(fmt.decode(after)) - wanted).square().sum()) < before


@walk
def test_its_work_is_what_a_graph_asks_for(name: str) -> None:
    fmt = format_named(name)
    if name == "sign":
        return
    work = fmt.work(SIZE, SIZE)
    assert sum(w.nbytes for w in work) == bytes_for(fmt, SIZE, SIZE)
    assert all(w.rows <= SIZE and (w.format == "" or is_format(w.format)) for w in work)


@walk
def test_node_body_and_kernel_agree_and_are_read_back(name: str, tmp_path: Path) -> None:
    fmt = format_named(name)
    table = "fp16" if fmt.linear_only else name
    linear = "fp16" if fmt == SIGN else name
    x, look_up = format_named(linear), format_named(table)
    model = Product(
        stored_module(look_up.encode(matrix().numpy()), "embedding"),
        stored_module(x.encode(matrix().numpy()), "linear"),
    )
    law = bytes_for(look_up, SIZE, SIZE) + bytes_for(x, SIZE, SIZE)
    graph = export_graph(model, [StateSpec("s", (SIZE,), 0.0)], tmp_path, law)
    tokens = np.array([[3, 0, 5]])
    rows = look_up.decode(look_up.encode(matrix().numpy()))[tokens[0]]
    if name == "ternary":  # as BitNet rounds: inputs to 8 bits, one step for a token
        step = np.abs(rows).max(-1, keepdims=True) / 127
        rows = np.round(rows / step) * step
    wanted = rows @ x.decode(x.encode(matrix().numpy())).T
    for library in (None, _library()):
        options = session_options(library, 1, graph.io.bodies)
        session = ort.InferenceSession(tmp_path / "model.onnx", options)
        (found,) = session.run(["logits"], {"tokens": tokens, "state.s": np.zeros((1, SIZE), np.float32)})
        np.testing.assert_allclose(found[0], wanted, rtol=1e-3, atol=1e-4)
    read = sorted(n.format for n in read_workload(tmp_path / "model.onnx").nodes if n.is_matrix)
    asked = sorted(w.format for w in x.work(SIZE, SIZE) if w.format)
    assert [_dense_spelling(f) for f in read] == [_dense_spelling(f) for f in asked]
    assert math.isfinite(float(np.abs(wanted).max()))


def _dense_spelling(name: str) -> str:
    """A group of all inputs is a row."""
    return name.removesuffix(f"-g{SIZE}")


def _library() -> Path:
    try:
        return library_path()
    except NotAvailable as missing:
        pytest.skip(str(missing))
