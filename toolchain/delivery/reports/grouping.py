"""Layers by block and by module, in model order: what the pictures and tables are arranged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from toolchain.delivery.reports.data import LayerRow, Report
from toolchain.delivery.reports.palette import bits_per_weight
from toolchain.search.outcome import LayerLoss

OTHER = "other parameters"
"""What is stored beside the layers: norms, decays, biases."""


@dataclass(frozen=True)
class Share:
    """The bytes that one format takes in a block, and how many layers are stored in it."""

    format: str
    bits: float
    bytes: int
    layers: int


@dataclass(frozen=True)
class BlockRow:
    """One block before and after; shares with many bits first."""

    name: str
    bytes_fp32: int
    bytes: int
    shares: tuple[Share, ...]

    @property
    def formats(self) -> str:
        """5 x int4-g64, int8; empty for what is no layer."""
        return ", ".join(f"{s.layers} x {s.format}" if s.layers > 1 else s.format for s in self.shares if s.layers)


def module_of(layer: LayerRow) -> str:
    """The layer's name inside its block: att.key; empty if the block is the layer."""
    return layer.path[len(layer.block) :].removeprefix(".") if layer.path.startswith(layer.block) else layer.path


def by_block(report: Report) -> dict[str, list[LayerRow]]:
    """Layers of every block, both in model order."""
    blocks: dict[str, list[LayerRow]] = {}
    for layer in report.layers:
        blocks.setdefault(layer.block, []).append(layer)
    return blocks


def block_rows(report: Report) -> list[BlockRow]:
    """Every block, then what is stored beside the layers, so that the sums are those of the manifest."""
    rows = [_block_row(name, layers) for name, layers in by_block(report).items()]
    sizes = report.manifest.bytes
    before = sizes.weights_fp32 - sum(row.bytes_fp32 for row in rows)
    after = sizes.weights - sum(row.bytes for row in rows)
    if before > 0 or after > 0:
        bits = 32.0 * after / before if before > 0 else 32.0
        rows.append(BlockRow(OTHER, max(0, before), max(0, after), (Share("as stored", bits, max(0, after), 0),)))
    return rows


def _block_row(name: str, layers: list[LayerRow]) -> BlockRow:
    stored: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    number: Counter[str] = Counter()
    for layer in layers:
        stored[layer.format] += layer.bytes
        weights[layer.format] += layer.rows * layer.cols
        number[layer.format] += 1
    shares = [Share(f, bits_per_weight(stored[f], weights[f], 1), stored[f], number[f]) for f in stored]
    shares.sort(key=lambda share: (-share.bits, share.format))
    return BlockRow(
        name, sum(layer.bytes_fp32 for layer in layers), sum(layer.bytes for layer in layers), tuple(shares)
    )


def searched_formats(layers: Sequence[LayerRow], sensitivities: Sequence[LayerLoss]) -> list[str]:
    """The formats of the sensitivities, from many bits per weight to few."""
    weights = {layer.path: layer.rows * layer.cols for layer in layers}
    stored: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for row in sensitivities:
        stored[row.format] += row.bytes
        count[row.format] += weights.get(row.layer, 0)
    return sorted(stored, key=lambda name: -bits_per_weight(stored[name], count[name], 1))
