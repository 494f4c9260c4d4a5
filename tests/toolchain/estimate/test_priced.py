"""Every operator has a price of its own in a probed target, or is named here with what it costs instead."""

from __future__ import annotations

import dataclasses
import re

import torch
from family_cases import CASES
from torch import nn

from exporters.formats.catalog import formats_matching
from exporters.graph_nodes import ATTENDS
from exporters.microbenchmark_nodes import PLAIN_NODES
from exporters.microbenchmarks import matrix_operator
from exporters.ops.signatures import SIGNATURES
from exporters.ops.translate import translation_table
from targets.cpus.plan import FORMATS, QUICK_FORMATS
from toolchain.estimate.latency import _OPERATORS, model_workload
from toolchain.model.catalog import LoadedModel
from toolchain.model.families import FAMILIES

OTHERWISE = {
    "QEmbedding": "one row of a table, as any node of that width",
    "TableEmbedding": "likewise",
    "SignEmbedding": "likewise",
    "EventLinear": "as a dense matrix of as many bits: how many inputs are zero is a matter of the text",
}
PRICED = {operator for operators, _ in PLAIN_NODES.values() for operator in operators}


def multiplied(names: tuple[str, ...]) -> set[str]:
    return {matrix_operator(fmt.name) for fmt in formats_matching(names)}


def test_every_operator_has_rows_or_a_reason() -> None:
    assert {s.name for s in SIGNATURES} - PRICED - multiplied(FORMATS) == set(OTHERWISE)
    assert {s.name for s in SIGNATURES} - PRICED - multiplied(QUICK_FORMATS) == {
        *OTHERWISE,
        "SparseLinear",
        "TableLinear",
    }


def test_what_torch_calls_an_operator_is_priced_as_that_operator() -> None:
    """Those of our namespace that are no products: `slmc::anchored_attention` is AnchoredAttention."""
    ours = {op.__name__.split(".")[0] for op in translation_table() if op.namespace == "slmc"}
    camel = {name: re.sub(r"(?:^|_)(.)", lambda m: m[1].upper(), name) for name in ours}
    of_no_product = {name: operator for name, operator in camel.items() if operator in PRICED}
    assert {name: _OPERATORS.get(name) for name in of_no_product} == of_no_product
    assert {"plif", "delta_rule", "anchored_attention_int8", "linear_recurrence"} <= set(of_no_product)


def loaded(name: str, kv_cache: str) -> tuple[LoadedModel, nn.Module]:
    module, _ = CASES[name][0]()
    (family,) = [f for f in FAMILIES if f.name == name]
    tree = family.tree(module)
    empty = dict.fromkeys((f.name for f in dataclasses.fields(LoadedModel)), None)
    return LoadedModel(**empty | {"module": module.eval(), "tree": tree, "kv_cache": kv_cache}), module  # type: ignore[arg-type]


def operators_of(name: str, kv_cache: str = "fp32") -> dict[str, set[int]]:
    """Widths of every operator's nodes."""
    model, _ = loaded(name, kv_cache)
    found: dict[str, set[int]] = {}
    for node in model_workload(model, dict.fromkeys((x.path for x in model.tree.layers), "fp32")).nodes:
        found.setdefault(node.operator, set()).add(node.rows)
    return found


def test_new_families_ask_for_what_is_priced() -> None:
    torch.manual_seed(0)
    light = operators_of("symboliclight")
    assert light["AnchoredAttention"] == {32}, "by the width of what it gives, not by its cache"
    assert light["Plif"] == {32} and light["LinearRecurrence"] == {32}
    assert operators_of("symboliclight", "int8")["AnchoredAttentionInt8"] == {32}
    assert operators_of("rwkv7")["DeltaRule"] == {2 * 16 * 16}, "by the entries of its states"
    assert operators_of("llama", "int8")["CachedAttentionInt8"] == {32}, "the cache as it is stored"
    assert operators_of("neuronspark")["Plif"] == {3 * 32, 3 * 48, 3 * 64}, "three frames of a token"
    assert all("Attention" not in name or name.startswith(ATTENDS) for name in light)
