"""What tensors themselves say of a model: names without wrappers, numbered layers, sizes."""

from __future__ import annotations

import re

from exporters.artifact.errors import SlmcError
from toolchain.model.family import Shapes

_WRAPPERS = re.compile(
    r"^(?:(?:module|_orig_mod|_fsdp_wrapped_module|base_model|language_model|model|transformer|gpt_neox)\.)+"
)


def without_wrappers(name: str) -> str:
    """A tensor's name without the prefixes that wrapping modules leave: model., transformer., module. and so on."""
    return _WRAPPERS.sub("", name)


def count_layers(shapes: Shapes, pattern: str, what: str = "layers") -> int:
    """How many numbered layers the weights have; the pattern has one group.

    Raises:
        SlmcError: there are gaps.
    """
    indices = {int(m[1]) for m in (re.match(pattern, name) for name in shapes) if m}
    if indices != set(range(len(indices))):
        raise SlmcError(f"the weights have {what} {sorted(indices)[:8]}; expected 0, 1, 2 ... without gaps")
    return len(indices)


def matrix(shapes: Shapes, name: str) -> tuple[int, int]:
    """Rows and columns of a tensor that sizes come from.

    Raises:
        SlmcError: it is missing, or no matrix.
    """
    shape = shapes.get(name)
    if shape is None:
        raise SlmcError(f"the weights have no {name}; copy the model again")
    if len(shape) != 2 or 0 in shape:
        raise SlmcError(f"{name} has shape {list(shape)}, expected a matrix")
    return shape[0], shape[1]
