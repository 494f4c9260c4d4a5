"""Where the compiled kernels lie, and the C functions that other languages call in them."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from pathlib import Path
from typing import Final

from exporters.artifact.errors import NotAvailable
from exporters.artifact.opening import MIB, read_bytes

_FILE_NAME = "libslmc_ops.so"
_LIBRARY_BYTES: Final = 256 * MIB
_BUILD_ID: Final = re.compile(rb"slmc_build_id=([0-9a-f]{64})\0")


def library_path() -> Path:
    """Path of the operator library that was installed with this package.

    Raises:
        NotAvailable: the package was installed without its compiled part.
    """
    spec = importlib.util.find_spec("slmc_native")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(folder) / _FILE_NAME
        if candidate.is_file():
            return candidate
    raise NotAvailable(
        f"{_FILE_NAME} is not installed: found no folder 'slmc_native' beside the Python packages; "
        "install with 'pip install .' (a C++17 compiler is needed)"
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The operator library, loaded once for direct calls.

    Raises:
        NotAvailable: it is not installed, or this machine cannot load it.
    """
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NotAvailable(f"{path} cannot be loaded ({error}); install again with 'pip install .'") from error


def build_id(path: Path) -> str | None:
    """Which sources a library was compiled from, by the mark in its file, which is not loaded: a library is code.

    Equal for equal sources, whatever compiled them; None where there is no mark, as in older libraries.

    Raises:
        SlmcError: the file cannot be read.
    """
    found = _BUILD_ID.search(read_bytes(path, "install or copy it again", _LIBRARY_BYTES))
    return found[1].decode() if found else None
