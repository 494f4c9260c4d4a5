"""Every operator says the same in torch, as an ONNX function on a stock runtime, and as a native kernel."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from anchored_cases import ANCHORED
from reading_cases import BY_HAND

from exporters.ops.functions import is_nbits
from exporters.ops.signatures import DOMAIN, SIGNATURES

CASES = BY_HAND + ANCHORED


def test_every_operator_has_a_case_by_hand():
    assert {case.operator for case in CASES} == {signature.name for signature in SIGNATURES}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.operator}: {c.name}")
def test_by_hand(reading, case):
    outputs = reading(case.operator, case.inputs, case.attributes)
    assert len(outputs) == len(case.expected)
    for output, expected in zip(outputs, case.expected, strict=True):
        assert output.shape == expected.shape and output.dtype == expected.dtype
        np.testing.assert_allclose(output, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.operator}: {c.name}")
def test_the_kernel_wins_where_it_is_registered(one_node_model, native_path, tmp_path, case):
    """One file serves both: a stock runtime inlines the function, one with our library keeps the node."""
    model = one_node_model(case.operator, case.inputs, case.attributes).SerializeToString()
    kept = {}
    for library in (None, native_path):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        if library:
            options.register_custom_ops_library(library)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
        kept[library] = [node.op_type for node in nodes if node.domain == DOMAIN]
    assert kept == {None: [], native_path: [case.operator]}


@pytest.mark.parametrize(
    ("bits", "group", "zeros", "nbits"),
    [(4, 64, False, True), (4, 256, False, True), (4, 320, False, False), (4, 64, True, False), (8, 64, False, False),
     (2, 32, True, False), (3, 96, False, False)],
)  # fmt: skip
def test_layouts_that_matmulnbits_serves_as_they_are(bits, group, zeros, nbits):
    assert is_nbits(bits, group, zeros) == nbits
