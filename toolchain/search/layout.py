"""The last step of a search: layers whose inputs are mostly zero turn input-major, in no more bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from exporters.formats.base import Encoded, Format, bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.event import PREFIX
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.tree import Layer, ModelTree
from toolchain.search.store import LayerStore

LEAST_ZEROS = 0.7
"""From this share of zeros on a product that skips them beats both dense ones, weights from DRAM; in a cache the
dense one with 8-bit activations is beaten later (benchmarks/event_kernels.py shows where on a machine)."""


def with_layouts(recipe: Recipe, tree: ModelTree, zeros: Mapping[str, float], fixed: Collection[str]) -> Recipe:
    """The recipe with dense integer formats exchanged for their event twins where inputs are mostly zero.

    A matrix that tokens are looked up in as well stays as it is: its rows are read one by one. Activations stay as the
    search chose and judged them; those that round to zero cost nothing either.

    Args:
        zeros: share of zero inputs by layer path; a layer that is not there stays as it is.
        fixed: layers whose format the user chose.
    """
    return recipe | {
        layer.path: dataclasses.replace(recipe[layer.path], format=twin.name)
        for layer in tree.layers
        if layer.path not in fixed and not layer.table and zeros.get(layer.path, 0.0) >= LEAST_ZEROS
        for twin in _twins(layer, recipe[layer.path])
    }


def _twins(layer: Layer, config: LayerConfig) -> list[Format]:
    """The input-major format that holds the same matrix in no more bytes, or none."""
    fmt = format_named(config.format)
    if not fmt.input_major:
        return []
    twin = format_named(PREFIX + fmt.name)
    fits = bytes_for(twin, layer.rows, layer.cols) <= bytes_for(fmt, layer.rows, layer.cols)
    return [twin] if fits else []


def encoded_layer(layers: LayerStore, path: str, config: LayerConfig) -> Encoded:
    """A layer as its choice stores it; an event layout is made of the dense codes that the search has paid for."""
    fmt = format_named(config.format)
    return fmt.from_plain(layers.encoded(path, dataclasses.replace(config, format=fmt.plain.name)))
