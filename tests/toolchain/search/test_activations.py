"""The tier of rounded inputs: as many products as the limits allow, by losses that add up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.search.activations import ACTIVATIONS, asked_activations
from toolchain.search.search import search
from toolchain.search.sensitivity import CREST, activation_loss

LINEAR = {f"blocks.{i}.{name}" for i in range(2) for name in ("key", "gate", "value")} | {"head"}


def asked(problem: Any, activations: str, **limits: Any) -> Any:
    return dataclasses.replace(problem(**limits), activations=activations)


def rounded(recipe: Recipe) -> set[str]:
    return {path for path, config in recipe.items() if config.activations == "int8"}


def as_weights(recipe: Recipe) -> dict[str, tuple[str, str]]:
    return {path: (config.format, config.method) for path, config in recipe.items()}


@pytest.mark.parametrize("limits", [{"max_bytes": 22_000}, {"max_drop": 0.05}, {"max_bytes": 25_000, "max_drop": 0.2}])
def test_what_costs_nothing_is_done_everywhere(problem: Any, evaluator: Any, limits: dict[str, Any]) -> None:
    before = search(asked(problem, "fp32", **limits), evaluator())
    result = search(asked(problem, "search", **limits), evaluator())
    integers = {p for p in LINEAR if before.winner.recipe[p].format.startswith("int")}
    assert rounded(before.winner.recipe) == set() and rounded(result.winner.recipe) == integers and result.feasible
    assert as_weights(result.winner.recipe) == as_weights(before.winner.recipe)
    assert len(result.trace) == len(before.trace) + 1 and result.trace[-1].tier == "inputs"


def test_the_most_sensitive_products_keep_their_inputs(problem: Any, evaluator: Any) -> None:
    fake = evaluator(rounding=3e-4)
    made = asked(problem, "search", max_drop=0.02)
    result = search(made, fake)
    found = rounded(result.winner.recipe)
    assert 0 < len(found) < len(LINEAR) and result.feasible and result.winner.score.relative_drop <= 0.02

    def cost(path: str) -> float:
        plain = LayerConfig("int4-g64", "range")
        return fake.loss(path, dataclasses.replace(plain, activations="int8")) - fake.loss(path, plain)

    assert max(map(cost, found)) <= min(cost(path) for path in LINEAR - found)
    assert result.winner in result.trace


def test_where_nothing_can_be_rounded_nothing_is(problem: Any, evaluator: Any) -> None:
    result = search(asked(problem, "search", max_drop=0.02), evaluator(rounding=10.0))
    assert rounded(result.winner.recipe) == set() and result.feasible


@pytest.mark.parametrize(
    ("said", "spikes", "searched"),
    [("auto", False, "search"), ("auto", True, "fp32"), ("search", True, "search"), ("fp32", False, "fp32"),
     ("int8", True, "int8")],
)  # fmt: skip
def test_what_is_searched_where_nothing_is_said(problem: Any, said: str, spikes: bool, searched: str) -> None:
    tree = dataclasses.replace(problem(max_drop=0.1).tree, spikes=spikes)
    assert said in ACTIVATIONS and asked_activations(said, tree) == searched


def test_without_a_drop_limit_rounding_must_cost_little(problem: Any, evaluator: Any) -> None:
    dear = search(asked(problem, "search", max_bytes=22_000), evaluator(rounding=1e-2))
    cheap = search(asked(problem, "search", max_bytes=22_000), evaluator(rounding=1e-7))
    assert rounded(dear.winner.recipe) < LINEAR and rounded(cheap.winner.recipe) == LINEAR


def test_who_asks_for_int8_gets_it_and_is_told_what_it_misses(problem: Any, evaluator: Any) -> None:
    result = search(asked(problem, "int8", max_drop=0.02), evaluator(rounding=10.0))
    assert rounded(result.winner.recipe) >= {p for p in LINEAR if result.winner.recipe[p].format.startswith("int")}
    assert not result.feasible and result.winner.drop > 0.02


def test_layers_of_floats_are_left_alone(problem: Any, evaluator: Any) -> None:
    made = asked(problem, "int8", max_drop=0.02, pins={"head": "fp16"})
    assert search(made, evaluator()).winner.recipe["head"].activations == "fp32"


@pytest.mark.parametrize(
    ("name", "activations"), [("2:4/int4-g64", "int8"), ("fp4-g32", "int8"), ("1:8/int8+6:8/fp4-g16", "fp32")]
)
def test_products_with_n_of_m_round_their_inputs_but_not_decomposed_ones(
    problem: Any, evaluator: Any, name: str, activations: str
) -> None:
    made = asked(problem, "int8", max_drop=0.02, pins={"head": name})
    assert search(made, evaluator()).winner.recipe["head"].activations == activations


def test_expected_loss_by_hand() -> None:
    # blocks of 2 inputs with mean squares (4 + 12) / 2 = 8 and 2: steps^2 = those * (CREST / 127)^2
    hessian = torch.diag(torch.tensor([4.0, 12.0, 2.0]))
    weight, fisher = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 3.0]]), torch.tensor([1.0, 0.5])
    expected = 0.5 * (1 * 8 + 0.5 * (4 * 8 + 9 * 2)) * (CREST / 127) ** 2 / 12
    assert activation_loss(weight, hessian, fisher, 2) == pytest.approx(expected)
