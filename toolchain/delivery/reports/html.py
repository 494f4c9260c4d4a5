"""The report as one HTML file: style and pictures inside, nothing fetched, no script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any
from xml.etree import ElementTree as ET

import jinja2
from markupsafe import Markup

from toolchain.delivery.reports import activity, bars, frontier, grouping, heatmap, layermap, summary, svg, tables
from toolchain.delivery.reports.data import LayerRow, Report
from toolchain.search.outcome import LayerLoss

TEMPLATE, STYLE = "template.html.j2", "style.css"

WIDE_FRONTIER, NARROW_FRONTIER = (900.0, 480.0), (400.0, 440.0)
WIDE_BARS, NARROW_BARS = 900.0, 400.0

_NOT_FOR_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def render_html(report: Report) -> str:
    """The whole page; every name and text of the report comes out escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.from_string(_resource(TEMPLATE)).render(_context(report))
    return _NOT_FOR_HTML.sub("\ufffd", page)


def render_heatmap(layers: Sequence[LayerRow], sensitivities: Sequence[LayerLoss], title: str) -> str:
    """A page with the sensitivity heat map alone."""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="generator" content="slmc">'
        "<title>{}</title><style>{}</style><h1>{}</h1>{}</html>"
    )
    picture = _markup(heatmap.draw(layers, sensitivities))
    return _NOT_FOR_HTML.sub("\ufffd", Markup(page).format(title, Markup(_resource(STYLE)), title, picture))


def _resource(name: str) -> str:
    return resources.files("toolchain.delivery.reports").joinpath(name).read_text(encoding="utf-8")


def _context(report: Report) -> dict[str, Any]:
    """Everything that the template names."""
    return {
        "style": Markup(_resource(STYLE)),
        "title": summary.title(report),
        "verdict": summary.verdict(report),
        "mood": _mood(report),
        "limited": report.max_bytes is not None or report.max_drop is not None,
        "figures": summary.figures(report),
        "constraints": summary.constraint_rows(report),
        "tiers": _tier_keys(report),
        "points": len(report.points),
        "clipped": frontier.clipped(report),
        "frontier_wide": _markup(frontier.draw(report, *WIDE_FRONTIER)) if report.points else None,
        "frontier_narrow": _markup(frontier.draw(report, *NARROW_FRONTIER)) if report.points else None,
        "frontier_rows": [(tables.point_cells(p, report), p.winner) for p in tables.frontier_points(report)],
        "families": [tables.family_cells(row, report) for row in report.families],
        "family_head": tables.FAMILY_HEAD,
        "screening": report.screening,
        "transformations": [tables.transformation_cells(row) for row in report.transformations],
        "transformation_head": tables.TRANSFORMATION_HEAD,
        "spikes": activity.rows(report),
        "spikes_head": activity.HEAD,
        "spikes_text": activity.text(report),
        "heatmap": _markup(heatmap.draw(report.layers, report.sensitivities)) if report.sensitivities else None,
        "map": layermap.layer_map(report),
        "bars_wide": _markup(bars.draw(report, WIDE_BARS)),
        "bars_narrow": _markup(bars.draw(report, NARROW_BARS)),
        "blocks": grouping.block_rows(report),
        "layers": [(tables.layer_cells(layer), layermap.level_of(layer)) for layer in report.layers],
        "tables": tables.tables(report),
        "prompt": report.sample_prompt,
        "sample": report.sample_text,
        "provenance": tables.provenance(report),
        "producer": report.manifest.producer,
    }


def _mood(report: Report) -> str:
    """The colour of the verdict; none where nothing was asked for."""
    constraints = report.manifest.constraints
    return ("good" if all(c.met for c in constraints) else "bad") if constraints else "plain"


def _tier_keys(report: Report) -> list[tuple[Markup, str, int]]:
    """The legend: mark, tier, number of its candidates."""
    numbers = Counter(point.tier for point in report.points)
    return [(_key(index), tier, numbers[tier]) for tier, index in frontier.tiers(report).items()]


def _key(index: int) -> Markup:
    element = ET.Element("svg", {"class": "key", "viewBox": "0 0 16 16", "aria-hidden": "true"})
    path = svg.mark_path(frontier.shape_of(index), 8, 8, 5)
    svg.add(element, "path", f"t{index % len(svg.SHAPES)}", d=path)
    return _markup(element)


def _markup(element: ET.Element) -> Markup:
    return Markup(svg.to_text(element))
