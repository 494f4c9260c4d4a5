"""No model, however wrong, crashes or hangs the native operators; the seeds are the cases by hand, some per operator.

The longer run, on all cases that the tests have and with the sanitizers: 'make fuzz'.
"""

from __future__ import annotations

import importlib.util
import sys
import zlib
from pathlib import Path

import pytest
from child_runtime import Child
from fuzzing import Fuzzer
from onnx import helper, numpy_helper

from exporters.ops.signatures import DOMAIN, SIGNATURES, VERSION

MUTANTS = 60


def by_hand():
    """The cases by hand of tests/exporters/ops: every operator has one, a test there sees to it."""
    path = Path(__file__).parents[1] / "ops" / "test_readings.py"
    spec = importlib.util.spec_from_file_location("cases_by_hand", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.BY_HAND


def model_of(case):
    """A model of one node in which the first input is fed and the others are weights."""
    signature = next(s for s in SIGNATURES if s.name == case.operator)
    order = [p.name if p.name in case.inputs else "" for p in signature.inputs]
    outputs = [p.name for p in signature.outputs]
    fed = {name: array for name, array in case.inputs.items() if name == order[0]}
    graph = helper.make_graph(
        [helper.make_node(case.operator, order, outputs, domain=DOMAIN, **case.attributes)],
        case.operator,
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
            for n, a in fed.items()
        ],
        [helper.make_tensor_value_info(n, 1, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in case.inputs.items() if n not in fed],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), fed


@pytest.fixture(scope="module")
def fuzzer(native_path):
    child = Child([sys.executable], native_path)
    yield Fuzzer(child, native_path)
    child.close()


@pytest.mark.parametrize("case", by_hand(), ids=lambda case: f"{case.operator}: {case.name}")
def test_mutants_are_refused_or_answered(fuzzer, case):
    model, fed = model_of(case)
    seed = zlib.crc32(f"{case.operator}: {case.name}".encode())
    fuzzer.attack(seed, model, fed, MUTANTS)
