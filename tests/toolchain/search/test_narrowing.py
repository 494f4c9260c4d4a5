"""Which pairs of a large model are compressed: corrections by hand, and what a search still finds."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from told import Told

from toolchain.compress.recipe import LayerConfig
from toolchain.search import dense_screening, narrowing
from toolchain.search.allocate import allocate
from toolchain.search.narrowing import Believed, narrowed
from toolchain.search.search import search


class Misjudging(Told):
    """The fake evaluator with estimates that are wrong by a factor of each format."""

    FACTORS: ClassVar = {"fp16": 1.0, "int8": 3.0, "int6-g64": 0.5, "int4-g64": 4.0, "int3-g64": 0.25, "int2-g64": 2.0}

    def estimate(self, path: str, config: LayerConfig) -> float:
        return self.FACTORS.get(config.format, 1.0) * self.fake.loss(path, config)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_screening, "LARGE", 1)
    monkeypatch.setattr(dense_screening, "PRICE_RANGE", 1e6)
    monkeypatch.setattr(dense_screening, "MARGIN", 1e3)
    monkeypatch.setattr(narrowing, "SAMPLED", 1)


@pytest.mark.usefixtures("large")
def test_an_estimate_is_corrected_by_what_its_format_truly_lost(problem: Any, evaluator: Any) -> None:
    made, told = problem(max_bytes=18_000), Misjudging(evaluator())
    believed = Believed(made, told, lambda done, total: None)
    key, gate, value = (f"blocks.0.{name}" for name in ("key", "gate", "value"))
    four = next(c for c in made.options[key] if c.format == "int4-g64")
    assert believed.losses()[gate, four] == pytest.approx(4 * told.fake.loss(gate, four))
    assert believed.compress([(key, four), (key, four)])
    assert believed.losses()[gate, four] == pytest.approx(told.fake.loss(gate, four))
    assert believed.losses()[key, four] == believed.measured[key, four] == told.fake.loss(key, four)
    assert not believed.compress([(key, four)])
    three = next(c for c in made.options[value] if c.format == "int3-g64")
    assert believed.losses()[value, three] == pytest.approx(0.25 * told.fake.loss(value, three)), "not sampled"


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("most", [14_000, 18_000, 24_000])
def test_wrong_estimates_lead_to_the_same_recipe_with_fewer_pairs(problem: Any, evaluator: Any, most: int) -> None:
    made = problem(max_bytes=most)
    found, told = search(made, less := Misjudging(evaluator())), Misjudging(evaluator())
    every = {pair: told.loss(*pair) for pair in ((p, c) for p, own in made.options.items() for c in own)}
    divided = allocate(
        [
            [(every.get((x.path, c), 0.0), made.layer_bytes(x, c)) for c in made.options[x.path]]
            for x in made.tree.layers
        ],
        most - made.tree.fixed_bytes,
    )
    assert divided is not None
    best = sum(every[x.path, made.options[x.path][i]] for x, i in zip(made.tree.layers, divided, strict=True))
    assert sum(every[pair] for pair in found.winner.recipe.items()) == pytest.approx(best)
    assert len(less.compressed) < len(every)
    assert found.screening is not None and found.screening.compressed < found.screening.left
    assert "were compressed: a sample of every format" in found.screening.text()


@pytest.mark.usefixtures("large")
def test_a_limit_that_nothing_keeps_leaves_all_options(problem: Any, evaluator: Any) -> None:
    made = problem(max_bytes=10)
    assert narrowed(made, Misjudging(evaluator())).options.keys() == made.options.keys()


def test_a_small_model_is_not_narrowed(problem: Any, evaluator: Any) -> None:
    made = problem(max_bytes=18_000)
    assert narrowed(made, Misjudging(evaluator())) is made
