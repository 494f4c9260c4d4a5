"""The vector types of every instruction set, alone: each of their operations against plain C++."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "vectors"
NATIVE = Path(__file__).parents[3] / "exporters" / "native"
LACKING = 77


def built(folder: Path, *options: str) -> Path:
    if not shutil.which("cmake"):
        pytest.skip("cmake is not installed")
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    for command in (("-S", SOURCES, "-B", folder, *generator, *options), ("--build", folder)):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "vector_tests"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")):
        pytest.skip("needs Debian's g++-aarch64-linux-gnu and qemu-user")
    return built(tmp_path_factory.mktemp("aarch64"), "--toolchain", str(NATIVE / "aarch64-linux-gnu.cmake"))


def does_as_it_should(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == LACKING:
        pytest.skip("this processor lacks it")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(done.stdout.split()[-4]) > 1000


@pytest.mark.parametrize("name", ["avx2", "avx_vnni", "avx512vl_vnni", "avx512"])
def test_here(name: str, here: Path) -> None:
    does_as_it_should(here, name)


@pytest.mark.parametrize(("cpu", "name"), [("cortex-a53", "neon"), ("cortex-a76", "neon_dot")])
def test_under_emulation(cpu: str, name: str, aarch64: Path) -> None:
    does_as_it_should("qemu-aarch64", "-cpu", cpu, aarch64, name)
