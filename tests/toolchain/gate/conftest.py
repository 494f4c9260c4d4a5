"""Figures of an artifact that never ran, for the gate to compare."""

from __future__ import annotations

import pytest

from toolchain.gate.values import Figures, LayerSize, Machine, Predictions, Sizes, Speed, TextRead


@pytest.fixture
def figures() -> Figures:
    """Two layers, perplexity 20, agreement 90 %, 10 MB, 1 ms per token."""
    return Figures(
        Sizes(1000, 50, 1200),
        {"emb": LayerSize("sign", 40), "head": LayerSize("int4-g64", 960)},
        TextRead("text.txt", "ab" * 32, 5),
        Machine("A CPU", "avx2", 1, "1.24", True, "abc"),
        Predictions(20.0, 0.9, 1.0, 1.0),
        (10_000_000, 10_010_000, 10_000_000),
        Speed((1.0, 1.01, 0.99), 2.0),
    )
