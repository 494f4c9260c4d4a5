"""The format of every layer as a map: blocks down, modules across, a colour for the bits that a weight takes."""

from __future__ import annotations

from dataclasses import dataclass

from targets.device import quantities
from toolchain.delivery.reports.data import LayerRow, Report
from toolchain.delivery.reports.grouping import by_block, module_of
from toolchain.delivery.reports.palette import bit_level, bits_per_weight


@dataclass(frozen=True)
class Cell:
    """One layer, or an empty place (level 0) where a block lacks the module; span in columns."""

    format: str
    level: int
    tip: str
    span: int = 1


@dataclass(frozen=True)
class LayerMap:
    """Column heads, and rows of a block's name and its cells; every row spans all columns."""

    modules: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    levels: tuple[int, ...]


def level_of(layer: LayerRow) -> int:
    return bit_level(bits_per_weight(layer.bytes, layer.rows, layer.cols))


def layer_map(report: Report) -> LayerMap:
    """The map; a block that is one layer, like an embedding, is one cell across all columns."""
    blocks = by_block(report)
    several = [layers for layers in blocks.values() if not _is_one_layer(layers)]
    modules = tuple(dict.fromkeys(module_of(layer) for layers in several for layer in layers)) or ("",)
    rows = [(name, _cells(layers, modules)) for name, layers in blocks.items()]
    return LayerMap(modules, tuple(rows), tuple(sorted({level_of(layer) for layer in report.layers})))


def _is_one_layer(layers: list[LayerRow]) -> bool:
    return len(layers) == 1 and not module_of(layers[0])


def _cells(layers: list[LayerRow], modules: tuple[str, ...]) -> tuple[Cell, ...]:
    if _is_one_layer(layers):
        return (_cell(layers[0], len(modules)),)
    named = {module_of(layer): layer for layer in layers}
    return tuple(_cell(named[m]) if m in named else Cell("", 0, "") for m in modules)


def _cell(layer: LayerRow, span: int = 1) -> Cell:
    bits = quantities.significant(bits_per_weight(layer.bytes, layer.rows, layer.cols))
    tip = (
        f"{layer.path}: {layer.format} by {layer.method}, {bits} bits per weight, {quantities.bytes_text(layer.bytes)}"
    )
    return Cell(layer.format, level_of(layer), tip, span)
