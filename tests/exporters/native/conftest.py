"""Kernel tests run once per instruction set that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library


def _levels() -> list[int]:
    try:
        library().slmc_force_isa(-1)
    except NotAvailable:
        return []
    return list(range(library().slmc_isa_level() + 1))


_WIDE = 3
_ALIKE_ABOVE = ("test_attention_kernels", "test_event_kernels", "test_sparse_kernels")
"""Modules whose kernels are at the level of matrices those of the level before."""


@pytest.fixture(params=_levels(), ids=lambda level: f"isa{level}")
def isa(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs a test once per instruction set."""
    if request.param > _WIDE and request.module.__name__.rpartition(".")[2] in _ALIKE_ABOVE:
        pytest.skip("the kernels of the level before")
    library().slmc_force_isa(request.param)
    yield request.param
    library().slmc_force_isa(-1)
