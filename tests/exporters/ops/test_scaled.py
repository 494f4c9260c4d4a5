"""Matrices whose scales float16 cannot hold: one Mul behind the product or the look-up, on both runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from products import Product
from torch import nn

from exporters.export import export_graph
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.graph_nodes import read_workload
from exporters.ops.layers import shared_look_up
from exporters.ops.modules import stored_module
from exporters.states import StateSpec

N, K = 40, 64
NAMES = ("int8", "int4-g64", "uint3-g64", "2:4/int4-g64", "1:8/int8+6:8/fp4-g16", "fp16", "event/int4-g64",
         "diag+int4-g64", "lr4+int3-g64")  # fmt: skip
SHIFT = -40


def ran(folder: Path, library: str | None) -> np.ndarray:
    options = ort.SessionOptions()
    if library:
        options.register_custom_ops_library(library)
    session = ort.InferenceSession(folder / "model.onnx", options)
    tokens = np.array([[3, 0, 5]])
    return session.run(["logits"], {"tokens": tokens, "state.s": np.zeros((1, session_width(session)), np.float32)})[0]


def session_width(session: ort.InferenceSession) -> int:
    return int(session.get_inputs()[1].shape[1])


def exported(model: nn.Module, width: int, law: int, folder: Path) -> tuple[np.ndarray, list[str]]:
    """What torch says, and the operators of the graph."""
    export_graph(model, [StateSpec("s", (width,), 0.0)], folder, law)
    with torch.inference_mode():
        wanted, _ = model(torch.tensor([[3, 0, 5]]), [torch.zeros(1, width)])
    return wanted.numpy(), [node.operator for node in read_workload(folder / "model.onnx").nodes]


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_has_one_more_node_and_the_same_bytes(name: str, tmp_path: Path, native_path: str) -> None:
    rows = K if name.startswith("diag") else N
    weight = np.random.default_rng(1).normal(0, 0.1, (rows, K)).astype(np.float32)
    table, fmt = np.random.default_rng(2).normal(0, 1, (N, K)).astype(np.float32), format_named(name)
    law = bytes_for(format_named("int8"), N, K) + bytes_for(fmt, rows, K)
    kinds = []
    for k in (0, SHIFT):
        encoded = fmt.encode(np.ldexp(weight, k))
        look_up = format_named("int8").encode(np.ldexp(table, k))
        assert (encoded.exponent != 0) == (look_up.exponent != 0) == (k != 0)
        model = Product(stored_module(look_up, "embedding"), stored_module(encoded, "linear"))
        folder = tmp_path / str(k)
        folder.mkdir()
        wanted, operators = exported(model, rows, law, folder)
        kinds.append(sorted(operators))
        by_hand = np.ldexp(table, k)[[3, 0, 5]] @ np.ldexp(weight, k).T
        assert np.abs(wanted - by_hand).max() < np.ldexp(3.0, 2 * k)
        for library in (None, native_path):
            np.testing.assert_allclose(ran(folder, library), wanted, rtol=1e-4, atol=np.ldexp(1e-4, 2 * k))
    assert kinds[1] == sorted([*kinds[0], "Mul", "Mul"])
    onnx.checker.check_model(str(tmp_path / str(SHIFT) / "model.onnx"))


@pytest.mark.parametrize("name", ["int8", "int4-g32", "fp16"])
def test_a_tied_table_is_stored_once(name: str, tmp_path: Path, native_path: str) -> None:
    fmt, weight = format_named(name), np.ldexp(np.random.default_rng(1).normal(0, 1, (N, K)), SHIFT).astype(np.float32)
    encoded = fmt.encode(weight)
    head = stored_module(encoded, "linear")
    wanted, _ = exported(Product(shared_look_up(head, encoded), head), N, bytes_for(fmt, N, K), tmp_path)
    decoded = fmt.decode(encoded)
    np.testing.assert_allclose(wanted[0], decoded[[3, 0, 5]] @ decoded.T, rtol=1e-3)
    for library in (None, native_path):
        np.testing.assert_allclose(ran(tmp_path, library), wanted, rtol=1e-4, atol=np.ldexp(1e-3, 2 * SHIFT))
