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


@pytest.fixture(params=_levels(), ids=lambda level: f"isa{level}")
def isa(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs a test once per instruction set."""
    library().slmc_force_isa(request.param)
    yield request.param
    library().slmc_force_isa(-1)
