"""Nodes that were shipped in units of four rows, recorded before there were tiles for them (quads/)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from driven import Driver, command
from one_node import opened

SHIPPED = Path(__file__).parent / "quads"
RECORDED = np.load(SHIPPED / "outputs.npz")
NAMES = [name for name in RECORDED.files if name != "x"]


@pytest.mark.parametrize("tokens", [1, 9])
def test_shipped_quads_give_the_same_numbers(isa, tokens):
    model, x = onnx.load(SHIPPED / "model.onnx"), RECORDED["x"][:tokens]
    for name, y in zip(NAMES, opened(model).run(NAMES, {"x": x}), strict=True):
        np.testing.assert_allclose(y, RECORDED[name][:tokens], rtol=1e-5, atol=1e-4, err_msg=name)


def test_our_own_runtime_reads_shipped_quads():
    driver = Driver(command("slmc-run-driver"))
    outputs = driver.run((SHIPPED / "model.onnx").read_bytes(), {"x": RECORDED["x"]}, NAMES)
    driver.close()
    for name, y in zip(NAMES, outputs, strict=True):
        np.testing.assert_allclose(y, RECORDED[name], rtol=1e-5, atol=1e-4, err_msg=name)
