"""The table and the picture of head_to_head.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from toolchain.delivery.reports import svg
from toolchain.study.picture import COLOURS, STYLE

WIDTH, HEIGHT = 720.0, 360.0
LEFT, TOP, RIGHT, BOTTOM = 58.0, 16.0, 480.0, 310.0

Medians = Mapping[str, Mapping[str, float]]
"""Engine -> test -> milliseconds: of a prompt, or of a token at a depth."""


def tokens_per_second(test: str, ms: float) -> float:
    kind, tokens = test.split()
    return (int(tokens) if kind == "prompt" else 1) * 1e3 / ms


def table(engines: Sequence[Any], medians: Medians, threads: int) -> str:
    """Markdown; speeds in tokens per second."""
    tests = list(dict.fromkeys(test for found in medians.values() for test in found))
    tests.sort(key=lambda test: (test.split()[0], int(test.split()[1])))
    clock = "CPU time" if threads == 1 else "wall time"
    lines = [f"{threads} thread{'s' if threads > 1 else ''}, tokens per second by {clock}", ""]
    lines.append("| engine | MB | perplexity | " + " | ".join(tests) + " | peak RSS, MB |")
    lines.append("|---" * (4 + len(tests)) + "|")
    for engine in engines:
        found = medians[engine.name]
        speeds = [f"{tokens_per_second(test, found[test]):.1f}" if test in found else "" for test in tests]
        quality = "" if engine.perplexity is None else f"{engine.perplexity:.2f}"
        cells = [engine.name, f"{engine.file_bytes / 1e6:.1f}", quality, *speeds, f"{engine.peak_bytes / 1e6:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {engine.name}: {engine.built}" for engine in engines)])


def by_depth(found: Mapping[str, float]) -> list[tuple[int, float]]:
    """Tokens per second at every depth."""
    tests = [test for test in found if test.startswith("depth ")]
    return sorted((int(test.split()[1]), tokens_per_second(test, found[test])) for test in tests)


def write_picture(path: Path, medians: Medians) -> None:
    """Tokens per second against depth, both logarithmic, a line per engine."""
    picture = svg.canvas(WIDTH, HEIGHT, "study", "Generation by depth")
    picture.set("xmlns", "http://www.w3.org/2000/svg")
    ET.SubElement(picture, "style").text = STYLE
    lines = {name: by_depth(found) for name, found in medians.items()}
    depths = sorted({depth for line in lines.values() for depth, _ in line})
    speeds = [speed for line in lines.values() for _, speed in line]
    x = svg.log_scale(min(depths) * 0.8, max(depths) * 1.2, LEFT, RIGHT)
    y = svg.log_scale(min(speeds) * 0.85, max(speeds) * 1.15, BOTTOM, TOP)
    for depth in depths:
        svg.add(picture, "line", "grid", x1=x(depth), x2=x(depth), y1=TOP, y2=BOTTOM)
        svg.add_text(picture, "tick", f"{depth}", x(depth), BOTTOM + 16, "middle")
    for speed in svg.thinned(svg.log_ticks(y.low, y.high), y, 15):
        svg.add(picture, "line", "grid", x1=LEFT, x2=RIGHT, y1=y(speed), y2=y(speed))
        svg.add_text(picture, "tick", f"{speed:g}", LEFT - 6, y(speed) + 4, "end")
    svg.add_text(picture, "axis", "tokens before", (LEFT + RIGHT) / 2, BOTTOM + 36, "middle")
    svg.add_text(picture, "axis", "tokens per second", 13, (TOP + BOTTOM) / 2, "middle", rotate=-90)
    for i, (name, line) in enumerate(lines.items()):
        path_text = "M" + " L".join(f"{svg.attribute(x(depth))},{svg.attribute(y(speed))}" for depth, speed in line)
        svg.add(picture, "path", "line", d=path_text, fill="none", stroke=COLOURS[i], stroke_width=2)
        for depth, speed in line:
            svg.add(
                picture,
                "circle",
                "mark",
                f"{name}, {depth}: {speed:.1f}",
                cx=x(depth),
                cy=y(speed),
                r=4,
                fill=COLOURS[i],
            )
        svg.add(picture, "circle", "mark", cx=RIGHT + 20, cy=TOP + 14 + 20 * i, r=4, fill=COLOURS[i])
        svg.add_text(picture, "tick", name, RIGHT + 32, TOP + 18 + 20 * i)
    path.write_text(svg.to_text(picture) + "\n")
