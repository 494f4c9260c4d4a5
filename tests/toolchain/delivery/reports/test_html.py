"""The page as a browser parses it: whole, self-contained, escaped, every layer in it."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from toolchain.delivery.reports.data import Report
from toolchain.delivery.reports.html import render_html

VOID = {"meta", "link", "br", "hr", "img", "wbr", "input", "source"}
SECTIONS = ["figures", "frontier", "sensitivity", "formats", "bytes", "constraints", "tables", "sample", "layers",
            "provenance"]  # fmt: skip


class Page(HTMLParser):
    """Tags and attributes in order, texts, and whether every tag that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module", params=["report", "edge"])
def page(request: pytest.FixtureRequest) -> tuple[Report, str]:
    given: Report = request.getfixturevalue(request.param)
    return given, render_html(given)


def pictures(text: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r'<svg class="picture.*?</svg>', text, re.DOTALL)]


def test_tags_are_balanced_and_sections_in_order(page: tuple[Report, str]) -> None:
    parsed = Page(page[1])
    assert parsed.open == []
    assert [attrs["id"] for tag, attrs in parsed.tags if tag == "section"] == SECTIONS


def test_nothing_is_fetched_and_nothing_runs(page: tuple[Report, str]) -> None:
    text, parsed = page[1], Page(page[1])
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    for tag, attrs in parsed.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed"}
        assert not any(name in {"src", "href", "xlink:href"} or name.startswith("on") for name in attrs)


def test_pictures_are_well_formed_and_named(page: tuple[Report, str]) -> None:
    found = pictures(page[1])
    assert len(found) == 5
    for picture in found:
        assert picture.get("aria-label")
        assert "nan" not in ET.tostring(picture, encoding="unicode").lower().replace("not a number", "")


def test_marks_equal_candidates_in_the_wide_and_the_narrow_picture(page: tuple[Report, str]) -> None:
    drawn = [p for p in pictures(page[1]) if "frontier" in p.get("class", "").split()]
    assert len(drawn) == 2
    for picture in drawn:
        assert sum("mark" in e.get("class", "").split() for e in picture.iter()) == len(page[0].points)


def test_every_layer_is_in_the_table(page: tuple[Report, str]) -> None:
    table = page[1].split('<table class="layer-table">')[1].split("</table>")[0]
    rows = Page(table.split("<tbody>")[1].split("</tbody>")[0])
    assert sum(tag == "tr" for tag, _ in rows.tags) == len(page[0].layers)
    texts = "".join(rows.texts)
    for layer in page[0].layers:
        assert layer.path.replace("\x00", "\ufffd") in texts


def test_provenance_and_measurements_are_there(report: Report) -> None:
    text = "".join(Page(render_html(report)).texts)
    for expected in ("3f" * 32, "a0" * 32, "slmc 0.1.0", "Cortex-A53 at 1.4 GHz", "1.24.0", "native library",
                     "2025-11-22T06:30:00+00:00", "least bytes under both limits", "5.84 ms", "812 tokens/s",
                     "2.31 GB/s", "21.2 %", "Once upon a time", "not met"):  # fmt: skip
        assert expected in text, expected


def test_a_dry_artifact_says_not_measured(edge: Report) -> None:
    page = render_html(edge)
    text = "".join(Page(page).texts)
    for part in ("Quality: not measured.", "Parity: not measured.", "Latency and speed: not measured."):
        assert part in text
    assert "No constraint was given." in text
    assert "limits on size and drop hold" not in text, "nothing was asked, so the legend has no limits"


def test_a_report_of_nothing_renders(edge: Report) -> None:
    empty = dataclasses.replace(edge, layers=(), points=(), sensitivities=(), sample_prompt="", sample_text="")
    text = "".join(Page(render_html(empty)).texts)
    for part in ("No candidate was evaluated.", "Sensitivity: not measured.", "No text was generated."):
        assert part in text


def test_control_characters_and_lone_surrogates_can_be_written(edge: Report) -> None:
    text = render_html(edge)
    assert "\x00" not in text
    assert text.encode("utf-8")


def test_every_colour_class_has_a_rule(report: Report) -> None:
    text = render_html(report)
    style = text.split("</style>")[0]
    classes = {name for _, attrs in Page(text).tags for name in (attrs.get("class") or "").split()}
    coloured = {name for name in classes if re.fullmatch(r"[bht]\d+", name)}
    assert len(coloured) > 12
    assert all(f".{name} {{" in style for name in coloured)


def test_the_same_report_gives_the_same_page(report: Report) -> None:
    assert render_html(report) == render_html(report)
