"""Options, pins, bytes and efforts of a problem, counted by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.catalog import format_named, formats_matching
from toolchain.compress.recipe import LayerConfig
from toolchain.search.problem import EFFORTS, effort_named, layer_options


def test_bytes_of_a_recipe_by_hand(problem: Any) -> None:
    made = problem()
    recipe = {layer.path: LayerConfig("int4-g64", "range") for layer in made.tree.layers} | {
        "emb": LayerConfig("sign", "nearest"),
        "head": LayerConfig("int8", "range"),
        "blocks.1.value": LayerConfig("fp16", "nearest"),
    }
    signs = 100 * 8  # 64 bits are eight bytes
    int8_head = 100 * (64 + 2)  # one float16 scale a row
    int4_64 = 64 * (32 + 2)  # one group of 64 a row
    int4_128 = 64 * (64 + 4)
    expected = 4 * (50 + 30) + signs + int8_head + 4 * int4_64 + int4_128 + 2 * 64 * 128
    assert made.bytes(recipe) == expected == 37160


def test_the_smallest_recipe_by_hand(problem: Any) -> None:
    """int2-g64 is 16 bytes of codes and 2 of scale per 64 inputs."""
    groups = 4 * 64 + 2 * 64 * 2 + 100
    assert problem().smallest_bytes == 320 + 800 + groups * 18
    assert problem(pins={"head": "fp16"}).smallest_bytes == 320 + 800 + (groups - 100) * 18 + 2 * 100 * 64


def test_every_linear_has_every_format_and_signs_are_signs(problem: Any) -> None:
    options = problem().options
    assert options["emb"] == (LayerConfig("sign", "nearest"),)
    assert [c.format for c in options["head"]] == ["fp16", "int8", "int6-g64", "int4-g64", "int3-g64", "int2-g64"]
    assert {c.method for c in options["head"] if c.format != "fp16"} == {"range"}
    assert options["head"][0] == LayerConfig("fp16", "nearest")


def test_formats_are_filtered_by_globs(problem: Any) -> None:
    made = problem(formats=("int4-*", "uint2*"))
    assert {c.format for c in made.options["head"]} == {"int4-g32", "int4-g64", "int4-g128", "uint2-g32", "uint2-g64"}
    assert problem(formats=("int5",)).options["head"] == (LayerConfig("int5", "range"),)


def test_a_pin_leaves_one_option(problem: Any) -> None:
    options = problem(pins={"head": "int5-g128", "emb": "fp16"}).options
    assert options["head"] == (LayerConfig("int5-g128", "range"),)
    assert options["emb"] == (LayerConfig("fp16", "nearest"),)
    assert len(options["blocks.0.key"]) == 6


def test_gptq_is_for_linears_and_embeddings_are_rounded(problem: Any) -> None:
    tree, formats = problem().tree, formats_matching(("int4-g64",))
    options = layer_options(tree, formats, {"emb": "int4-g64"}, "gptq")
    assert options["emb"] == (LayerConfig("int4-g64", "range"),)
    assert options["head"] == (LayerConfig("int4-g64", "gptq"),)
    assert layer_options(tree, formats, {"emb": "int4-g64"}, "nearest")["emb"][0].method == "nearest"


@pytest.mark.parametrize(
    ("formats", "pins", "words"),
    [
        (("int4-g64",), {"head": "sign"}, ("layer head", "sign", "choose another")),
        (("int4-g64",), {"head": "int9"}, ("unknown format 'int9'", "allowed are")),
        (("sign",), {}, ("no format is left for layer blocks.0.key", "--formats")),
    ],
)
def test_impossible_options_are_named(
    problem: Any, formats: tuple[str, ...], pins: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SlmcError) as caught:
        layer_options(problem().tree, tuple(format_named(f) for f in formats), pins, "range")
    assert all(word in str(caught.value) for word in words)


def test_efforts_by_name() -> None:
    assert [effort_named(e.name) for e in EFFORTS] == list(EFFORTS)
    assert [e.name for e in EFFORTS] == ["quick", "default", "thorough"]
    for less, more in itertools.pairwise(EFFORTS):
        assert less.evaluation_tokens < more.evaluation_tokens
        assert less.budgets < more.budgets
    with pytest.raises(SlmcError, match="unknown effort 'heroic'; allowed are quick, default, thorough"):
        effort_named("heroic")


@pytest.mark.parametrize("effort", EFFORTS, ids=lambda e: e.name)
def test_the_formats_of_every_effort_exist(effort: Any) -> None:
    assert formats_matching(effort.formats)
