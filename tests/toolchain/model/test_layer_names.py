"""Layers named by regular expressions; what is none is refused in a line."""

from __future__ import annotations

import pytest

from exporters.artifact.errors import SlmcError
from toolchain.model.layer_names import layers_named
from toolchain.model.tree import Layer

LAYERS = [Layer("blocks.0.att.key", "linear", 4, 8), Layer("head", "linear", 8, 4)]


def test_found_anywhere_in_the_path() -> None:
    assert layers_named("att|^h", LAYERS, "--layer") == LAYERS
    assert layers_named("^att", LAYERS, "--layer") == []


DEEP = ("(" * 5000 + ")" * 5000, "(" * 450, "(" * 499 + ")" * 498)
REFUSED = (*DEEP, "[", "a{99999999999999999999}", "(?P<a", "x" * 1001, "\\")


@pytest.mark.parametrize("pattern", REFUSED)
def test_refused_in_one_line(pattern: str) -> None:
    with pytest.raises(SlmcError, match=r"^--layer ") as refused:
        layers_named(pattern, LAYERS, "--layer")
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)
