"""The model families: those that come with slmc, and those of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from exporters.artifact.errors import SlmcError
from toolchain.model.decoder_family import DECODERS
from toolchain.model.family import Family
from toolchain.model.matmulfree import MatMulFreeFamily
from toolchain.model.neuronspark import NeuronSparkFamily
from toolchain.model.rwkv4 import Rwkv4Family
from toolchain.model.rwkv7 import Rwkv7Family
from toolchain.model.spikegpt import SpikeGptFamily
from toolchain.model.spiking_bert import SpikingBertFamily
from toolchain.model.spikingbrain_family import SpikingBrainFamily
from toolchain.model.symboliclight import SymbolicLightFamily

FAMILIES: tuple[Family, ...] = (
    SpikeGptFamily(),
    *DECODERS,
    MatMulFreeFamily(),
    NeuronSparkFamily(),
    Rwkv4Family(),
    Rwkv7Family(),
    SpikingBertFamily(),
    SpikingBrainFamily(),
    SymbolicLightFamily(),
)

PLUGINS = "slmc.families"
"""The entry point group in which packages name families of their own: objects, or classes that make them."""


@cache
def all_families() -> tuple[Family, ...]:
    """Every family that there is here, those of slmc first.

    Raises:
        SlmcError: a package's family cannot be loaded, is none, or has the name of another.
    """
    found = list(FAMILIES)
    for point in sorted(entry_points(group=PLUGINS), key=lambda point: point.name):
        of = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        found.append(_loaded(point.load, of, {family.name for family in found}))
    return tuple(found)


def _loaded(load: Callable[[], Any], of: str, taken: set[str]) -> Family:
    try:
        family = load()
        family = family() if isinstance(family, type) else family
    except Exception as error:  # whatever a package raises
        raise SlmcError(
            f"package {of}: its model family cannot be loaded ({type(error).__name__}: {error}); mend or uninstall it"
        ) from error
    missing = [name for name in FAMILY_PARTS if not hasattr(family, name)]
    if missing:
        raise SlmcError(f"package {of}: its model family has no {', '.join(missing)}; see samples/own-family/README.md")
    if family.name in taken:
        raise SlmcError(
            f"package {of}: there is a model family {family.name} already; rename it, or uninstall the package"
        )
    made: Family = family
    return made


FAMILY_PARTS = ("name", "model_types", "classifies", "rename", "fits", "table", "build", "tree")
"""What a family has (toolchain.model.family.Family)."""
