"""The operators compiled for aarch64, under emulation: the same tests as here, with and without dot products."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from child_tests import run_in_child

from exporters.artifact.errors import NotAvailable
from targets.remote.emulation import emulated_python

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "build" / "native" / "linux-aarch64" / "libslmc_ops.so"
SYSROOT = ROOT / "build" / "aarch64" / "sysroot"
TESTS = ("tests/exporters/native", "tests/exporters/ops")
PREPARE = "'make test-aarch64' prepares and runs this"


def newest_source() -> float:
    return max(file.stat().st_mtime for file in (ROOT / "exporters" / "native").iterdir())


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_all_operators_on(cpu):
    if not LIBRARY.is_file():
        pytest.skip(f"no library for aarch64; {PREPARE}")
    if LIBRARY.stat().st_mtime < newest_source():
        pytest.skip(f"the library for aarch64 is older than its sources; {PREPARE}")
    try:
        python = emulated_python(SYSROOT, cpu)
    except NotAvailable as missing:
        pytest.skip(f"{missing}; {PREPARE}")
    ignored = (__file__, str(Path(__file__).with_name("test_fuzz.py")))
    run_in_child(LIBRARY, " ".join(python), *(f"--ignore={path}" for path in ignored), *TESTS)


def test_it_needs_little_of_a_device():
    """Raspberry Pi OS bookworm has glibc 2.36; the onnxruntime wheel brings the demand for libgcc_s itself."""
    if not LIBRARY.is_file():
        pytest.skip(f"no library for aarch64; {PREPARE}")
    said = subprocess.run(["readelf", "-dV", str(LIBRARY)], capture_output=True, text=True, check=True).stdout
    words = said.replace("[", " ").replace("]", " ").split()
    needed = {word for before, word in itertools.pairwise(words) if before == "library:"}
    assert needed <= {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1"}
    glibc = {tuple(map(int, word.removeprefix("GLIBC_").split("."))) for word in words if word.startswith("GLIBC_2")}
    assert max(glibc) <= (2, 32)
