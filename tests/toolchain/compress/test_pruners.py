"""Pruning methods by name: masks by brute force, SDQ worked by hand, every method in every kind of format."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.nm import NmFormat
from toolchain.compress.alps import damped
from toolchain.compress.catalog import METHODS, compress, method_for, method_takes, pruner_named
from toolchain.compress.gptq import Gptq
from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.pruners import PRUNERS, Pruner, Scored
from toolchain.compress.recipe import LayerConfig

SDQ = "1:8/int8+6:8/fp4-g16"
FORMATS = ("2:4/int4-g64", "4:8x16/int4-g64", "6:8/fp4-g16", SDQ)


def layer(rows: int, cols: int) -> tuple[Tensor, LayerStatistics]:
    generator = torch.Generator().manual_seed(rows * 1000 + cols)
    x = torch.randn(500, max(2, cols // 4), generator=generator) @ torch.randn(
        max(2, cols // 4), cols, generator=generator
    )
    x += 0.3 * torch.randn(500, cols, generator=generator)
    return torch.randn(rows, cols, generator=generator), LayerStatistics(
        x.T @ x / 500, torch.rand(cols, generator=generator)
    )


def decoded(weight: Tensor, fmt: str, method: str, statistics: LayerStatistics) -> Tensor:
    encoded = compress(weight, LayerConfig(fmt, method), statistics.hessian, statistics.entropy)
    assert encoded.nbytes == bytes_for(format_named(fmt), *weight.shape)
    return torch.from_numpy(format_named(fmt).decode(encoded))


@pytest.mark.parametrize("pruner", [p for p in PRUNERS if isinstance(p, Scored)], ids=lambda p: p.name)
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (6, 8)])
def test_no_other_mask_keeps_more_of_a_score(pruner: Scored, keep: int, of: int) -> None:
    weight, statistics = layer(2, 2 * of)
    pruned, score = pruner.prune(weight, keep, of, statistics), pruner.scores(weight, statistics)
    for row, start in itertools.product(range(2), (0, of)):
        part = slice(start, start + of)
        most = max(float(score[row, part][list(kept)].sum()) for kept in itertools.combinations(range(of), keep))
        kept = pruned[row, part] != 0
        assert int(kept.sum()) == keep
        assert float(score[row, part][kept].sum()) == pytest.approx(most)
        assert torch.equal(pruned[row, part][kept], weight[row, part][kept])


def exact_best(weight: Tensor, h: Tensor, keep: int, of: int) -> float:
    """The least (B - w) H (B - w)^T of one row [cols] over every mask, each with its exact weights."""
    cols = len(weight)
    least = float("inf")
    for choice in itertools.product(itertools.combinations(range(of), keep), repeat=cols // of):
        kept = [g * of + k for g, some in enumerate(choice) for k in some]
        b = torch.zeros(cols, dtype=torch.float64)
        b[kept] = torch.linalg.solve(h[kept][:, kept], h[kept] @ weight.double())
        error = b - weight.double()
        least = min(least, float(error @ h @ error))
    return least


@pytest.mark.parametrize("name", ["sparsegpt", "alps"])
def test_updates_come_near_the_best_mask_with_its_exact_weights(name: str) -> None:
    """Two groups of 2:4 in each of 12 rows: never below the best of all 36 masks, and not far above it in the sum."""
    weight, statistics = layer(12, 8)
    assert statistics.hessian is not None
    h = damped(statistics.hessian, Gptq.damping)
    error = (pruner_named(name).prune(weight, 2, 4, statistics) - weight).double()
    found = ((error @ h) * error).sum(1)
    best = torch.tensor([exact_best(row, h, 2, 4) for row in weight])
    assert (found >= best * (1 - 1e-5)).all()
    assert found.sum() < {"sparsegpt": 2.0, "alps": 1.25}[name] * best.sum()
    magnitude = (pruner_named("magnitude").prune(weight, 2, 4, statistics) - weight).double()
    assert found.sum() < 0.7 * ((magnitude @ h) * magnitude).sum()


def test_sdq_by_hand() -> None:
    """Scores |w| ||x||: 0.1 is the outlier, for its input is 200 times the others; 0.5, the smallest, is pruned.

    The outlier is exact in int8. The inliers' largest is 12.7 = 12 steps, a step is 1.0583: 6 is 5.67 steps and becomes
    6 of them (e2m1 has 4 and 6), 4 becomes 4 (3.78), 3 becomes 3 (2.83), -2 becomes -2 (-1.89), 1 becomes 1 (0.94).
    """
    weight = torch.tensor([[12.7, 0.1, 6.0, 3.0, -2.0, 1.0, 0.5, 4.0]])
    rms = torch.tensor([1.0, 200.0, 1, 1, 1, 1, 1, 1])
    step = 12.7 / 12
    expected = [12.7, 0.1, 6 * step, 3 * step, -2 * step, step, 0.0, 4 * step]
    found = decoded(weight, SDQ, "wanda", LayerStatistics(torch.diag(rms.square())))
    assert found[0].tolist() == pytest.approx(expected, rel=1e-3)
    # By magnitude alone 12.7 is the outlier, and 0.1 is pruned in place of 0.5.
    plain = decoded(weight, SDQ, "magnitude", LayerStatistics())[0]
    assert plain[1] == 0
    assert plain[0].item() == pytest.approx(12.7, rel=1e-3)
    assert plain[6].item() == pytest.approx(0.5, rel=1e-3)  # one step of 6 / 12


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda p: p.name)
def test_every_pattern_is_kept_and_feedback_pays(pruner: Pruner, fmt: str) -> None:
    weight, statistics = layer(32, 64)
    assert statistics.hessian is not None
    values, named = decoded(weight, fmt, pruner.name, statistics), format_named(fmt)
    assert isinstance(named, NmFormat | DecomposedFormat)
    parts = named.parts
    kept = (values != 0).view(32, -1, parts[0].period).sum(-1)
    assert int(kept.max()) <= sum(p.kept for p in parts)
    error = values - weight
    own = float(((error @ statistics.hessian) * error).sum())
    plain = decoded(weight, fmt, "magnitude", statistics) - weight
    beside = own / float(((plain @ statistics.hessian) * plain).sum())
    assert beside < (0.8 if pruner.name in ("sparsegpt", "alps") else 2.0)


@pytest.mark.parametrize("pruner", [p for p in PRUNERS if p.needs_hessian], ids=lambda p: p.name)
def test_what_calibration_did_not_see_is_asked_for(pruner: Pruner) -> None:
    weight, _ = layer(4, 16)
    with pytest.raises(SlmcError, match=f"{pruner.name} needs calibration"):
        pruner.prune(weight, 2, 4, LayerStatistics())
    with pytest.raises(SlmcError, match="needs calibration"):
        compress(weight, LayerConfig(SDQ, pruner.name), None)


def test_esparse_asks_for_entropies() -> None:
    weight, statistics = layer(4, 16)
    with pytest.raises(SlmcError, match="needs the entropy of the input channels"):
        compress(weight, LayerConfig("2:4/int4-g64", "esparse"), statistics.hessian)


def test_a_pruning_method_does_not_serve_a_dense_format() -> None:
    weight, statistics = layer(4, 64)
    with pytest.raises(SlmcError, match="method wanda prunes, and format int4-g64 keeps every weight; give it one of"):
        compress(weight, LayerConfig("int4-g64", "wanda"), statistics.hessian)
    with pytest.raises(SlmcError, match="unknown pruning method 'gptq'; allowed are magnitude, wanda"):
        pruner_named("gptq")


STANDS_IN = [
    ("wanda", "2:4/int4-g64", True, "wanda"), ("wanda", "int4-g64", True, "gptq"),
    ("wanda", "int4-g64", False, "range"),
    ("wanda", "fp16", True, "nearest"), ("wanda", "fp4-g16", True, "gptq"), ("magnitude", "fp4-g16", True, "nearest"),
    ("range", "2:4/int4-g64", True, "nearest"), ("range", "int4-g64", True, "range"), ("gptq", SDQ, True, "gptq"),
    ("descent", SDQ, True, "descent"), ("gptq", "int4-g64", False, "range"), ("gptq", "event/int4-g64", True, "gptq"),
    ("nearest", "sign", False, "nearest"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "fmt", "linear", "given"), STANDS_IN, ids=str)
def test_the_method_of_the_whole_model_gives_way_where_it_cannot(
    asked: str, fmt: str, linear: bool, given: str
) -> None:
    assert method_for(asked, format_named(fmt), linear=linear) == given


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("fmt", ["int4-g64", "event/int4-g64", "fp4-g16", *FORMATS])
def test_what_a_method_takes_it_can_do(method: Pruner, fmt: str) -> None:
    weight, statistics = layer(16, 64)
    if method_takes(method.name, format_named(fmt)):
        assert torch.isfinite(decoded(weight, fmt, method.name, statistics)).all()
