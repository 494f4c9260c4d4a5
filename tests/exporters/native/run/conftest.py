"""slmc-run as it was compiled, and artifacts of tiny models for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driven import Driver, command
from tiny import write

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def driver(emulator: str | None) -> Iterator[Driver]:
    driver = Driver(command("slmc-run-driver", emulator))
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def slmc_run(emulator: str | None) -> Run:
    """slmc-run with these arguments: exit code, stdout, stderr."""
    program = command("slmc-run", emulator)

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [*program, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)

    return call


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The artifact of a tiny model by name, written once."""
    made: dict[tuple[str, str, int], Path] = {}

    def find(name: str, kv_cache: str = "fp32", activations: int = 32) -> Path:
        key = (name, kv_cache, activations)
        if key not in made:
            made[key] = write(name, tmp_path_factory.mktemp(name), kv_cache, activations)
        return made[key]

    return find
