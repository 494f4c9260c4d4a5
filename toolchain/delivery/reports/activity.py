"""Which layers see spikes, at what rate, and how much of a token's work the artifact leaves out for it."""

from __future__ import annotations

from exporters.formats.event import PREFIX
from targets.device import quantities
from toolchain.delivery.reports.data import LayerRow, Report

HEAD = ("layer", "inputs", "not zero", "its product")


def rows(report: Report) -> list[tuple[str, ...]]:
    """A row under HEAD for every layer whose inputs are spikes or numbers of them, or whose product skips zeros."""
    return [
        (layer.path, _inputs(layer), quantities.percent(layer.nonzero),
         "skips zeros" if _skips(layer) else "is dense")
        for layer in report.layers
        if layer.nonzero is not None and (layer.spikes or layer.counts or _skips(layer))
    ]  # fmt: skip


def text(report: Report) -> str:
    """In a sentence: the shares of a token's products that spikes feed, and that are skipped."""
    known = [(layer, layer.rows * layer.cols) for layer in report.layers if layer.nonzero is not None]
    work = sum(products for _, products in known)
    if not work:
        return ""
    spikes = sum(products for layer, products in known if layer.spikes or layer.counts)
    skipped = sum(products * (1 - (layer.nonzero or 0)) for layer, products in known if _skips(layer))
    return (
        f"Spikes feed {quantities.percent(spikes / work)} of the products of a token, and "
        f"{quantities.percent(skipped / work)} of all are skipped because "
        "their input is zero (counted on the calibration text with the fp32 model)."
    )


def _inputs(layer: LayerRow) -> str:
    return "spikes" if layer.spikes else "numbers of spikes" if layer.counts else "real values"


def _skips(layer: LayerRow) -> bool:
    return layer.format.startswith(PREFIX)
