"""Which compiled operator library serves an artifact on this machine, and which instructions it uses."""

from __future__ import annotations

import contextlib
import ctypes
import filecmp
import platform
from pathlib import Path

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import MANIFEST_NAME, read_manifest
from exporters.artifact.native_library import build_id, library_path
from targets.device.host import host_isa

LIBRARY_NAME = "libslmc_ops.so"
_ENTRY_POINT = "RegisterCustomOps"
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def platform_name() -> str:
    """This machine as artifacts spell it, e.g. 'linux-x86_64', 'linux-aarch64'."""
    return machine_platform(platform.system(), platform.machine())


def machine_platform(system: str, machine: str) -> str:
    """The same from what a machine calls itself, as `uname -s` and `uname -m`."""
    return f"{system.lower()}-{_ARCHITECTURES.get(machine.lower(), machine.lower())}"


def serving_library(artifact: Path, *, own: bool = False) -> Path | None:
    """The operator library that serves an artifact here; None for plain ONNX Runtime.

    A library is code. An artifact's own is loaded only where `own` says so: on a device, or because the user trusts
    whom the artifact is from. Else the installed one serves, if the artifact brings the same build for this platform,
    or none at all.
    """
    brought = artifact_library(artifact)
    if own and _serves(brought):
        return brought.resolve()
    installed = installed_library()
    if installed is None or (not own and foreign_library(artifact)):
        return None
    return installed


def installed_library() -> Path | None:
    """The library that came with this package, if it loads."""
    # A device without the compiled package is an ordinary device: ONNX Runtime inlines the functions there.
    with contextlib.suppress(NotAvailable):
        if _serves(library := library_path()):
            return library.resolve()
    return None


def artifact_library(artifact: Path) -> Path:
    """Where an artifact keeps the library for this platform, if it brings one."""
    return artifact / "native" / platform_name() / LIBRARY_NAME


def foreign_library(artifact: Path) -> bool:
    """Whether an artifact brings a library for this platform that is another build than the installed one.

    The same build has the same bytes, or was compiled from the sources that the manifest names.

    Raises:
        SlmcError: the manifest cannot be read.
    """
    brought = artifact_library(artifact)
    if not brought.is_file():
        return False
    try:
        installed = library_path()
    except NotAvailable:
        return True
    return not filecmp.cmp(brought, installed, shallow=False) and not _same_sources(artifact, installed)


def _same_sources(artifact: Path, installed: Path) -> bool:
    if not (artifact / MANIFEST_NAME).is_file():
        return False
    named = (read_manifest(artifact).operators or {}).get(platform_name())
    return named is not None and named == build_id(installed)


def isa_name(library: Path | None) -> str:
    """The instruction set that the library chose on this machine, e.g. 'avx2'; without one, what the CPU offers."""
    loaded = _load(library) if library is not None else None
    isa_name = getattr(loaded, "slmc_isa_name", None)
    if isa_name is None:
        return host_isa()
    isa_name.restype = ctypes.c_char_p
    isa_name.argtypes = []
    name = isa_name()
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
