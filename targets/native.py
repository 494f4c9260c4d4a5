"""Which compiled operator library serves an artifact on this machine, and which instructions it uses."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from pathlib import Path

from exporters.errors import NotAvailable
from exporters.native_library import library_path
from targets.cpu import host_isa

LIBRARY_NAME = "libslmc_ops.so"
_ENTRY_POINT = "RegisterCustomOps"
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def platform_name() -> str:
    """This machine as artifacts spell it, e.g. 'linux-x86_64', 'linux-aarch64'."""
    return machine_platform(platform.system(), platform.machine())


def machine_platform(system: str, machine: str) -> str:
    """The same from what a machine calls itself, as `uname -s` and `uname -m`."""
    return f"{system.lower()}-{_ARCHITECTURES.get(machine.lower(), machine.lower())}"


def serving_library(artifact: Path) -> Path | None:
    """The artifact's own library for this platform if it loads, else the installed package's, else None."""
    candidates = [artifact / "native" / platform_name() / LIBRARY_NAME]
    # A device without the compiled package is an ordinary device: ONNX Runtime inlines the functions there.
    with contextlib.suppress(NotAvailable):
        candidates.append(library_path())
    return next((path.resolve() for path in candidates if _serves(path)), None)


def isa_name(library: Path | None) -> str:
    """The instruction set that the library chose on this machine, e.g. 'avx2'; without one, what the CPU offers."""
    loaded = _load(library) if library is not None else None
    said = getattr(loaded, "slmc_isa_name", None)
    if said is None:
        return host_isa()
    said.restype = ctypes.c_char_p
    said.argtypes = []
    name = said()
    return name.decode("ascii", "replace") if name else host_isa()


def _serves(library: Path) -> bool:
    return hasattr(_load(library), _ENTRY_POINT)


def _load(library: Path) -> ctypes.CDLL | None:
    if not library.is_file():
        return None
    try:
        return ctypes.CDLL(str(library.resolve()))
    except OSError:
        return None
