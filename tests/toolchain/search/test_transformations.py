"""Which rotations are taken: those of a model whose channels differ, and none where they are alike."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch

from exporters.formats.catalog import formats_matching
from tests.toolchain.transform.test_rotation import llama, loaded
from tests.toolchain.transform.test_statistics import statistics_of
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.model.catalog import LoadedModel
from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig, SpikeGptFamily
from toolchain.search.problem import Constraints, Problem, effort_named, layer_options
from toolchain.search.transformations import decide, transformed
from toolchain.transform.transformation import STREAM, Transformation, possible_rotations, tree_after

BLOCKS = [
    {
        f"layers.{i}.input_layernorm": [f"layers.{i}.self_attn.{n}_proj" for n in "qkv"],
        f"layers.{i}.post_attention_layernorm": [f"layers.{i}.mlp.{n}_proj" for n in ("gate", "up")],
    }
    for i in range(2)
]


def model_of(outliers: bool) -> LoadedModel:
    """A tied Llama of two layers; with outliers, one channel is small in norms and large in what reads behind them."""
    module, tree = llama(tied=True)
    model = loaded(module, tree)
    model.module.float()
    for name, parameter in model.module.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
    for norm, readers in (read for block in BLOCKS for read in block.items()) if outliers else ():
        model.module.get_parameter(f"{norm}.weight")[0] /= 50
        for path in readers:
            model.module.get_parameter(f"{path}.weight")[:, 0] *= 50
    return model


def problem_of(model: LoadedModel, max_bytes: int | None = None) -> Problem:
    formats = formats_matching(("int8", "int4-g32", "int3-g32"))
    options = layer_options(model.tree, formats, {}, "gptq")
    return Problem(model.tree, options, Constraints(max_bytes, None), effort_named("quick"), 0)


def test_outliers_are_spread_and_the_model_stays() -> None:
    model = model_of(outliers=True)
    statistics = statistics_of(model)
    considered = decide(problem_of(model), model, statistics)
    assert [t.place for t in considered] == [STREAM, "layers.0.self_attn.o_proj", "layers.1.self_attn.o_proj"]
    assert considered[0].taken and considered[0].after < 0.9 * considered[0].before
    found = transformed(model, statistics, considered, 0)
    assert found.model.tree == tree_after(model, considered)
    assert [layer.path for layer in found.model.tree.layers if layer.added] == ["norm.product"]
    assert found.statistics is not None and "norm.product" in found.statistics.hessians
    assert "the residual stream (expected loss -" in found.text()


def test_a_rotation_that_does_not_pay_is_not_taken() -> None:
    model = model_of(outliers=False)
    statistics = statistics_of(model)
    (stream, *_) = considered = decide(problem_of(model), model, statistics)
    assert not stream.taken and stream.after >= 0.97 * stream.before
    kept = transformed(model, statistics, [dataclasses.replace(t, taken=False) for t in considered], 0)
    assert kept.model is model and kept.statistics is statistics


def test_a_model_that_none_applies_to_costs_no_estimate() -> None:
    """Without statistics every estimate would fail."""
    module = SpikeGpt(SpikeGptConfig(2, 8, 20, 13))
    model = loaded(module, SpikeGptFamily().tree(module))
    assert decide(problem_of(model), model, cast(CalibrationStatistics, None)) == ()


def test_decisions_are_carried_out_one_by_one() -> None:
    model = model_of(outliers=False)
    place = "layers.1.self_attn.o_proj"
    found = transformed(model, statistics_of(model), (Transformation(place, 1.0, 0.5, True),), 0)
    changed = {x.path for x in model.tree.layers if not torch.equal(found.model.weight(x.path), model.weight(x.path))}
    assert changed == {"layers.1.self_attn.o_proj", "layers.1.self_attn.v_proj"}
    assert found.text() == (
        "transform: rotated are the values of 1 of 1 attention layers (expected loss -50%); the model computes the same"
    )


def test_rotations_depend_on_the_seed_and_their_place_alone() -> None:
    model = model_of(outliers=False)
    first, again, other = (possible_rotations(model, seed) for seed in (1, 1, 2))
    assert first.stream is not None and again.stream is not None and other.stream is not None
    assert torch.equal(first.stream.matrix, again.stream.matrix)
    assert not torch.allclose(first.stream.matrix, other.stream.matrix, atol=1e-3)
    assert not torch.allclose(first.heads[0].matrices, first.heads[1].matrices, atol=1e-3)
