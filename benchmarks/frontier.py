"""How far memory goes at a given drop: searched recipes beside uniform widths, same rounding, on a long text."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from toolchain.evidence.quality import Reference, stream_logits
from toolchain.evidence.student import Student
from toolchain.model.text import read_text
from toolchain.prepare import Prepared, gather_evidence, make_evaluator, prepare
from toolchain.search.sensitivity import sensitivities
from toolchain.search.tiers import global_tier, module_tier
from toolchain.spec import resolve

DROPS = (0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Point:
    """One recipe on the long text: who proposed it, its bytes, its drop and the standard error of that."""

    name: str
    bytes: int
    drop: float
    standard_error: float


def bytes_at(points: Sequence[Point], drop: float) -> float:
    """Bytes that reach a drop, between the two nearest points of the lower envelope; nan outside."""
    envelope: list[Point] = []
    for point in sorted(points, key=lambda p: p.bytes):
        if not envelope or point.drop < envelope[-1].drop:
            envelope.append(point)
    for small, large in itertools.pairwise(envelope):
        if large.drop <= drop <= small.drop:
            share = (small.drop - drop) / (small.drop - large.drop)
            return small.bytes + share * (large.bytes - small.bytes)
    return math.nan


def measure(prepared: Prepared, data: Path, tokens: int, least: float, most: float) -> tuple[list[Point], list[Point]]:
    """(uniform, searched) points between two shares of the fp32 bytes; a searched one is no larger than a uniform."""
    model, problem = prepared.model, prepared.problem
    text = read_text(data, model.tokenizer).head(tokens)
    with tempfile.TemporaryDirectory() as folder:
        evidence = gather_evidence(prepared, Path(folder), lambda *_: None)
        evaluator, layers = make_evaluator(prepared, evidence, Path(folder), time.monotonic())
        found = sensitivities(problem, evaluator, lambda *_: None)
        losses = {(s.layer, s.choice): s.loss for s in found}
        reference, student = Reference(model.forward, text.ids), Student(model, layers.encoded)

        def point(name: str, recipe: dict) -> Point:  # type: ignore[type-arg]
            score = reference.score(stream_logits(student.take(recipe), text.ids))
            result = Point(name, problem.bytes(recipe), score.relative_drop, score.standard_error)
            click.echo(
                f"{name:22} {result.bytes:9d} bytes  {result.drop:+.3%} +- {result.standard_error:.3%}", err=True
            )
            return result

        uniform = [
            point(name, recipe)
            for recipe, name in global_tier(problem)
            if least <= problem.bytes(recipe) / model.tree.bytes_fp32 <= most
        ]
        searched = []
        for size in sorted({p.bytes for p in uniform}):
            recipe = module_tier(problem, losses, size)
            if recipe is not None:
                searched.append(point(f"search, {size}", recipe))
    return uniform, searched


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--tokens", default=100_000)
@click.option("--least", default=0.0, help="Smallest share of the fp32 bytes that is of interest.")
@click.option("--most", default=0.25, help="Largest share of the fp32 bytes that is of interest.")
@click.option("--threads", default=2)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(model: Path, data: Path, tokens: int, least: float, most: float, threads: int, json_path: Path | None) -> None:
    """Measure and print two tables: at the same bytes, and at the same drop."""
    prepared = prepare(resolve({"model": model, "output": Path("unused"), "threads": threads}, None, ()))
    uniform, searched = measure(prepared, data, tokens, least, most)
    whole = prepared.model.tree.bytes_fp32
    click.echo(f"\n{data.name}, {tokens} tokens, percent of {whole} bytes\n")
    click.echo("| uniform | memory | drop | search at no more bytes | se |\n|---|---|---|---|---|")
    for point in sorted(uniform, key=lambda p: -p.bytes):
        best = min((p for p in searched if p.bytes <= point.bytes), key=lambda p: p.drop, default=None)
        ours = f"{best.drop:+.2%} at {best.bytes / whole:.2%}" if best else ""
        click.echo(
            f"| {point.name} | {point.bytes / whole:.2%} | {point.drop:+.2%} | {ours} | {point.standard_error:.2%} |"
        )
    click.echo("\n| drop | uniform | search |\n|---|---|---|")
    for drop in DROPS:
        cells = [f"{bytes_at(points, drop) / whole:.2%}" for points in (uniform, searched)]
        click.echo(f"| {drop:.1%} | {cells[0]} | {cells[1]} |")
    if json_path:
        json_path.write_text(json.dumps([p.__dict__ for p in (*uniform, *searched)], indent=1))


if __name__ == "__main__":
    main()
