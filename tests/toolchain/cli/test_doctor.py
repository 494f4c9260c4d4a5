"""What doctor says of the kernels, against what the library itself calls its levels."""

from __future__ import annotations

import ctypes
import platform

from exporters.artifact.native_library import library
from toolchain.cli.doctor import KERNELS

LEVELS = 4


def test_every_level_of_the_library_is_named() -> None:
    loaded = library()
    loaded.slmc_isa_name.restype = ctypes.c_char_p
    names = set()
    try:
        for level in range(LEVELS):
            loaded.slmc_force_isa(level)
            names.add(loaded.slmc_isa_name().decode())
    finally:
        loaded.slmc_force_isa(-1)
    assert "portable" in names
    assert names <= set(KERNELS[platform.machine()])
