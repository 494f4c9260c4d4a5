"""The sensitivity picture: layers down, formats across, colour for what the model loses by that one change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from xml.etree import ElementTree as ET

from targets.device import quantities
from toolchain.delivery.reports import svg
from toolchain.delivery.reports.data import LayerRow
from toolchain.delivery.reports.grouping import module_of, searched_formats
from toolchain.delivery.reports.palette import HEAT_CLASSES, Heat, heat_for
from toolchain.search.outcome import LayerLoss

CELL_WIDTH = 23.0
CELL_HEIGHT = 15.0
LETTER = 6.4
"""Width of a letter; the names of the formats stand at 52 degrees."""

GROUP_GAP = 5.0
SCALE_HEIGHT = 58.0
LEAST_WIDTH = 330.0
LARGEST = 1.3
"""Pixels on the screen for a unit; wider than that the cells are only bigger, not clearer."""

Row = tuple[str, str, str, str]
"""Block, module, path, chosen format."""


def rows_of(layers: Sequence[LayerRow], sensitivities: Sequence[LayerLoss]) -> list[Row]:
    """The layers that have sensitivities, in model order; then any that the model does not list."""
    measured = dict.fromkeys(row.layer for row in sensitivities)
    known = {layer.path: layer for layer in layers}
    rows: list[Row] = [_row(layer) for path, layer in known.items() if path in measured]
    return rows + [("unlisted", path, path, "") for path in measured if path not in known]


def _row(layer: LayerRow) -> Row:
    return layer.block, module_of(layer), layer.path, layer.format


def best_of(rows: Iterable[LayerLoss]) -> dict[tuple[str, str], LayerLoss]:
    """One row for every layer and format: where several methods were tried, the one that loses least."""
    best: dict[tuple[str, str], LayerLoss] = {}
    for row in rows:
        key = (row.layer, row.format)
        if key not in best or row.loss < best[key].loss:
            best[key] = row
    return best


def draw(layers: Sequence[LayerRow], sensitivities: Sequence[LayerLoss]) -> ET.Element:
    """The picture; one rect of class "cell" for every layer and format that was tried, "mine" where it was chosen."""
    rows, formats = rows_of(layers, sensitivities), searched_formats(layers, sensitivities)
    best = best_of(sensitivities)
    heat = heat_for([row.loss for row in best.values()])
    groups = [list(members) for _, members in groupby(rows, key=lambda row: row[0])]
    header, overhang = _name_room(formats)
    left = _left_room(groups)
    width = max(LEAST_WIDTH, left + CELL_WIDTH * len(formats) + overhang)
    height = header + CELL_HEIGHT * len(rows) + GROUP_GAP * len(groups) + SCALE_HEIGHT
    picture = svg.canvas(width, height, "heatmap", "what each layer alone loses in each format")
    picture.set("style", f"max-width: {width * LARGEST:.0f}px")
    for column, name in enumerate(formats):
        x = left + CELL_WIDTH * (column + 0.62)
        svg.add_text(picture, "tick", _short(name, 22), x, header - 5, rotate=-52)
    y = header
    for group in groups:
        svg.add_text(picture, "tick strong", _short(group[0][0]), 2, y + 11)
        for row in group:
            _draw_row(picture, row, formats, best, heat, left, y)
            y += CELL_HEIGHT
        y += GROUP_GAP
    _draw_scale(picture, heat, y + 16)
    return picture


def _name_room(formats: list[str]) -> tuple[float, float]:
    """Height that the slanting names of the formats take, and how far the names of the last ones reach out."""
    lengths = [min(22, len(name)) * LETTER for name in formats] or [0.0]
    turned = math.radians(52)
    reach = max(n * math.cos(turned) - CELL_WIDTH * (len(lengths) - i - 0.5) for i, n in enumerate(lengths))
    return 16 + max(lengths) * math.sin(turned), max(8.0, reach + 8)


def _left_room(groups: list[list[Row]]) -> float:
    """Width of the names on the left: a block's name stands beside its first module's."""
    beside = [len(_short(group[0][0])) + len(_short(group[0][1])) for group in groups]
    alone = [len(_short(row[1])) for group in groups for row in group]
    return max([0, *beside, *alone]) * LETTER + 14


def _draw_row(
    picture: ET.Element,
    row: Row,
    formats: list[str],
    best: dict[tuple[str, str], LayerLoss],
    heat: Heat,
    left: float,
    y: float,
) -> None:
    _, module, path, chosen = row
    if module:
        svg.add_text(picture, "tick", _short(module), left - 5, y + 11, "end")
    for column, name in enumerate(formats):
        x = left + CELL_WIDTH * column
        found = best.get((path, name))
        if found is None:
            svg.add(picture, "rect", "untried", x=x, y=y, width=CELL_WIDTH - 1, height=CELL_HEIGHT - 1)
            continue
        kind = f"cell h{heat.class_of(found.loss)}" + (" mine" if name == chosen else "")
        cost = (
            f"expected loss {quantities.significant(found.loss)} nats per token, {quantities.bytes_text(found.bytes)}"
        )
        tip = f"{path} in {name}: {cost}"
        svg.add(picture, "rect", kind, tip=tip, x=x, y=y, width=CELL_WIDTH - 1, height=CELL_HEIGHT - 1)
        if name == chosen:
            middle = (x + (CELL_WIDTH - 1) / 2, y + (CELL_HEIGHT - 1) / 2)
            svg.add(picture, "circle", "chosen-dot", cx=middle[0], cy=middle[1], r=3.4)


def _draw_scale(picture: ET.Element, heat: Heat, y: float) -> None:
    """The colours with the decades that they stand for."""
    left, width = 20.0, 24.0 * HEAT_CLASSES
    for index in range(HEAT_CLASSES):
        x = left + index * width / HEAT_CLASSES
        svg.add(picture, "rect", f"scale h{index}", x=x, y=y, width=width / HEAT_CLASSES, height=10)
    scale = svg.linear_scale(heat.low, heat.high, left, left + width)
    for power, text in heat.decades():
        svg.add_text(picture, "tick", text, scale(power), y + 23, "middle")
    svg.add_text(picture, "tick faint", "expected loss, nats per token", left, y + 38)


def _short(name: str, most: int = 16) -> str:
    """A name that fits its place: its end says most."""
    return name if len(name) <= most else "…" + name[1 - most :]
