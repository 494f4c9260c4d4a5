"""Tables of steps: a matrix encoded by hand, k-means on weights with a known answer, bytes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.learned_steps import even_steps, learned_steps, nearest_steps, rising
from exporters.formats.nonuniform import NonUniformFormat
from exporters.formats.parts import Grid
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig

STEPS = (-128, -60, -20, 0, 10, 30, 70, 127)


def test_by_hand() -> None:
    """Scale 0.5 and these steps make codes 1, 7, 4 and 3 out of -30, 63.5, 5 and 0.4; 2.5 is half-way, and goes up."""
    fmt = NonUniformFormat(3, 16, STEPS)
    grid = Grid(np.array([[0.5]], np.float32), None, fmt.table)
    codes = fmt.codes(np.array([[-30, 63.5, 5, 0.4, 2.5]], np.float32), grid)
    assert codes.tolist() == [[1, 7, 4, 3, 4]]
    encoded = fmt.store(codes, grid)
    assert encoded.packed["steps"].tolist() == list(STEPS) and encoded.packed["steps"].dtype == np.int8
    low = np.unpackbits(encoded.packed["codes"], bitorder="little").reshape(-1, 2) @ [1, 2]
    high = np.unpackbits(encoded.packed["high"], bitorder="little")
    assert (low + 4 * high).tolist() == [1, 7, 4, 3, 4] + [3] * 11  # padding has the step zero
    assert format_named("nl3-g16").decode(encoded).tolist() == [[-30, 63.5, 5, 0, 5]]


def test_bytes_are_those_of_integers_and_a_table() -> None:
    for bits, table in ((3, 8), (4, 16)):
        of_integers = bytes_for(format_named(f"int{bits}-g64"), 48, 96)
        assert bytes_for(format_named(f"nl{bits}-g64"), 48, 96) == of_integers + table


def test_the_means_of_clusters_are_found() -> None:
    """Eight values of equal number, no two nearest to the same even step: nothing is left to err."""
    values = np.array([-128, -90, -70, -30, 5, 35, 60, 100], np.float32)
    steps = learned_steps(np.tile(values, (64, 8)).reshape(64, 1, 64), np.ones((1, 64), np.float32), 8, 0.5)
    assert steps.tolist() == values.tolist()


def test_important_inputs_get_the_steps() -> None:
    """Two halves of inputs with weights of their own kind: errors of the half that counts are smaller, for its sake."""
    random = np.random.default_rng(0)
    weight = np.concatenate([random.normal(0, 1, (64, 32)), random.laplace(0, 0.3, (64, 32))], 1).astype(np.float32)
    fmt, lost = NonUniformFormat(3, 64), []
    for costs in (np.repeat([1.0, 1e-4], 32), np.repeat([1e-4, 1.0], 32)):
        fitted = fmt.fitted(weight, costs.astype(np.float32))
        error = np.square(fmt.decode(fitted.nearest(weight)) - weight)
        lost.append((error[:, :32].sum(), error[:, 32:].sum()))
    assert lost[0][0] < lost[1][0] and lost[1][1] < lost[0][1]


def test_steps_are_integers_that_rise() -> None:
    assert rising(np.array([-300, -1.4, -1.2, 0, 0.2, 126.8, 127, 999])).tolist() == [-128, -1, 0, 1, 2, 125, 126, 127]
    assert even_steps(16) == tuple(range(-128, 128, 16))
    assert nearest_steps(np.array([-999, 999], np.float32), np.array(STEPS, np.float32)).tolist() == [0, 7]


@pytest.mark.parametrize("name", ["nl2-g64", "nl4", "nl4-g48", "nl5-g64", "unl4-g64", "2:4/nl4-g64", "event/nl4-g64"])
def test_what_is_no_such_format(name: str) -> None:
    with pytest.raises(SlmcError, match="format"):
        format_named(name)


def test_a_table_loses_less_than_even_steps() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(500, 128, generator=random) @ torch.randn(128, 128, generator=random)
    weight, hessian = torch.randn(64, 128, generator=random), x.T @ x / 500
    for bits in (3, 4):
        for method in ("nearest", "gptq", "descent"):
            lost = {}
            for name in (f"int{bits}-g64", f"nl{bits}-g64"):
                encoded = compress(weight, LayerConfig(name, method), hessian)
                error = torch.from_numpy(format_named(name).decode(encoded)) - weight
                lost[name] = float(((error @ hessian) * error).sum())
            assert lost[f"nl{bits}-g64"] < 0.95 * lost[f"int{bits}-g64"], (method, lost)


def test_zeros_and_one_weight_are_stored() -> None:
    fmt = format_named("nl4-g32")
    assert not fmt.decode(fmt.encode(np.zeros((3, 40), np.float32))).any()
    one = np.zeros((2, 32), np.float32)
    one[1, 5] = -7
    np.testing.assert_allclose(fmt.decode(fmt.encode(one)), one, atol=0.05)
