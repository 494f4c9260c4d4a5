"""How far memory goes at a given drop: uniform widths, the search among dense formats, and the search among all."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from torch import Tensor

from exporters.formats.catalog import family_of
from exporters.formats.families import DENSE
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import Recipe
from toolchain.model.family import LanguageModel
from toolchain.model.text import read_text
from toolchain.pipeline.calibrate import Notifier, calibrate, evaluator_of
from toolchain.pipeline.job import Job, prepare, read_calibration
from toolchain.pipeline.spec import resolve
from toolchain.quality.reference import Reference, standard_error
from toolchain.search.budgets import dense_alone
from toolchain.search.screening import screened
from toolchain.search.sensitivity import sensitivities
from toolchain.search.store import recipe_key
from toolchain.search.tiers import global_tier, module_tier
from toolchain.tuning.distil import Schedule
from toolchain.tuning.stage import piece_tokens, tuned


@dataclass(frozen=True)
class Point:
    """One recipe on the long text: who proposed it, its bytes, expected loss in nats, drop and the drop's error.

    formats: layers in each. losses: nats of every token, to compare two points in pairs.
    """

    name: str
    bytes: int
    expected: float
    drop: float
    standard_error: float
    formats: dict[str, int]
    losses: Tensor = field(repr=False)


@dataclass(frozen=True)
class Found:
    """Uniform dense formats; the searches among dense formats (None where none is so small) and among all, in pairs
    of the same budget."""

    uniform: list[Point]
    pairs: list[tuple[int, Point | None, Point]]
    screening: str

    @property
    def dense(self) -> list[Point]:
        return [dense for _, dense, _ in self.pairs if dense is not None]

    @property
    def all(self) -> list[Point]:
        return [point for _, _, point in self.pairs]


def envelope(points: Sequence[Point]) -> list[Point]:
    """The points that lose less than every smaller one, by rising bytes."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: p.bytes):
        if not best or point.drop < best[-1].drop:
            best.append(point)
    return best


def bytes_at(points: Sequence[Point], drop: float) -> float:
    """Bytes that reach a drop, between the two nearest points of the envelope; nan where none does."""
    least = envelope(points)[0]
    if least.drop <= drop:
        return least.bytes
    for small, large in itertools.pairwise(envelope(points)):
        if large.drop <= drop <= small.drop:
            share = (small.drop - drop) / (small.drop - large.drop)
            return small.bytes + share * (large.bytes - small.bytes)
    return math.nan


def measure(job: Job, data: Path, tokens: int, shares: Sequence[float], folder: Path, tune: int = 0) -> Found:
    """Every recipe on the first tokens of a text.

    shares: of the fp32 bytes, budgets beside the sizes of uniform formats, which the first and the last bound.
    tune: steps of distillation that every recipe gets; then there are no budgets but those of `shares`.
    """
    model = job.model
    text = read_text(data, model.tokenizer).head(tokens)
    calibrated = calibrate(job, folder, Notifier(progress=_progress, say=lambda text: None))
    job, model = calibrated.job, calibrated.model
    evaluator, layers = evaluator_of(calibrated, folder), calibrated.layers
    problem, screening = screened(job.problem, evaluator, lambda d, t: _progress("screening", d, t))
    found = sensitivities(problem, evaluator, lambda d, t: _progress("sensitivity", d, t))
    expected = {(s.layer, s.choice): s.loss for s in found}
    reference, quantized = Reference(model.forward, text.ids), QuantizedModel(model, layers.encoded)
    known: dict[str, Point] = {}

    def say(text: str) -> None:
        click.echo(text, err=True)

    def compressed(recipe: Recipe) -> LanguageModel:
        if not tune:
            return quantized.apply(recipe)
        work = folder / f"tuning-{recipe_key(recipe)}"
        work.mkdir(exist_ok=True)
        encoded = {path: layers.encoded(path, choice) for path, choice in recipe.items()}
        read = read_calibration(job.spec, model, piece_tokens(model))
        learned, stored = tuned(model, encoded, read, Schedule(tune), work, _progress, say)
        return QuantizedModel(learned, lambda path, _: stored[path]).apply(recipe)

    def point(name: str, recipe: Recipe) -> Point:
        key = repr(sorted(recipe.items()))
        if key not in known:
            losses = Reference(compressed(recipe), text.ids).losses
            apart = (losses - reference.losses).double()
            drop, error = math.expm1(float(apart.mean())), standard_error(apart)
            formats = Counter(c.format for c in recipe.values())
            nats = sum(expected[item] for item in recipe.items())
            known[key] = Point(name, problem.bytes(recipe), nats, drop, error, dict(formats.most_common()), losses)
            click.echo(f"{name:22} {known[key].bytes:9d} bytes  {drop:+.3%} +- {error:.3%}", err=True)
        return known[key]

    alone = dense_alone(problem)
    whole = model.tree.bytes_fp32
    uniform = [
        point(name, recipe)
        for recipe, name in global_tier(alone)
        if not tune and shares[0] <= problem.bytes(recipe) / whole <= shares[-1]
    ]
    pairs = []
    for budget in sorted({round(share * whole) for share in shares} | {p.bytes for p in uniform}):
        dense, everything = (module_tier(among, expected, budget) for among in (alone, problem))
        if everything is not None:
            beside = None if dense is None else point(f"dense, {budget / whole:.2%}", dense)
            pairs.append((budget, beside, point(f"all, {budget / whole:.2%}", everything)))
    return Found(uniform, pairs, screening.text() if screening else "no sparse formats")


def tables(found: Found, whole: int) -> str:
    """Three tables in Markdown: uniform, at the same bytes, at the same drop."""

    def searched(most: int, points: list[Point]) -> Point | None:
        return min((p for p in points if p.bytes <= most), key=lambda p: p.drop, default=None)

    lines = [found.screening + "\n", "| uniform | memory | drop | search, dense | search, all |\n|---|---|---|---|---|"]
    for p in sorted(found.uniform, key=lambda p: -p.bytes):
        best = [searched(p.bytes, points) for points in (found.dense, found.all)]
        cells = [f"{b.drop:+.2%} at {b.bytes / whole:.2%}" if b else "" for b in best]
        lines.append(
            f"| {p.name} | {p.bytes / whole:.2%} | {p.drop:+.2%} +- {p.standard_error:.2%} | {' | '.join(cells)} |"
        )
    lines.append("\n| at most | dense | all | all beside dense, in pairs | sparse layers |\n|---|---|---|---|---|")
    for budget, beside, p in found.pairs:
        gain = "no dense recipe is so small"
        if beside is not None:
            apart = (p.losses - beside.losses).double()
            gain = f"{math.expm1(float(apart.mean())):+.2%} +- {standard_error(apart):.2%}"
        dense = f"{beside.drop:+.2%}" if beside else ""
        sparse = ", ".join(f"{n} x {f}" for f, n in p.formats.items() if family_of(f) != DENSE)
        lines.append(f"| {budget / whole:.2%} | {dense} | {p.drop:+.2%} | {gain} | {sparse} |")
    # A build evaluates both at every budget, so that what it can choose from is never worse than dense alone.
    lines.append("\n| drop | dense | dense and all | fewer bytes |\n|---|---|---|---|")
    for p in reversed(envelope(found.dense)):
        other = bytes_at([*found.dense, *found.all], p.drop)
        lines.append(f"| {p.drop:+.2%} | {p.bytes / whole:.2%} | {other / whole:.2%} | {1 - other / p.bytes:+.1%} |")
    return "\n".join(lines)


def _progress(stage: str, done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        click.echo(f"{stage} {done}/{total}", err=True)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--tokens", default=20_000)
@click.option("--least", default=0.055, help="Smallest budget, as a share of the fp32 bytes.")
@click.option("--most", default=0.16, help="Largest budget, as a share of the fp32 bytes.")
@click.option("--points", default=14, help="Budgets in equal ratios, beside the sizes of the uniform formats.")
@click.option("--formats", multiple=True, help="What 'all' may choose from; the default effort's if not given.")
@click.option("--method", help="How layers are compressed; the default effort's if not given.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Text; prose of our own if not given.")
@click.option("--tune", default=0, help="Steps of distillation for every recipe; budgets are then those of --points.")
@click.option("--threads", default=1)
@click.option("--work", type=click.Path(path_type=Path), help="Folder that keeps compressed layers for another run.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(
    model: Path, data: Path, tokens: int, least: float, most: float, points: int, formats: tuple[str, ...],
    method: str | None, calibration: Path | None, tune: int, threads: int, work: Path | None, json_path: Path | None,
) -> None:  # fmt: skip
    """Measure and print the tables."""
    given = {
        "model": model, "output": Path("unused"), "threads": threads, "formats": formats, "method": method,
        "calibration": calibration,
    }  # fmt: skip
    job = prepare(resolve(given, None, ()))
    shares = [least * (most / least) ** (i / max(points - 1, 1)) for i in range(max(points - 1, 1))] + [most]
    with tempfile.TemporaryDirectory() as folder:
        where = work or Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        found = measure(job, data, tokens, shares, where, tune)
    whole = job.model.tree.bytes_fp32
    click.echo(f"\n{data.name}, {tokens} tokens, percent of {whole} bytes\n")
    click.echo(tables(found, whole))
    if json_path:
        kinds = {"uniform": found.uniform, "dense": found.dense, "all": found.all}
        kept = {
            kind: [{k: v for k, v in p.__dict__.items() if k != "losses"} for p in own] for kind, own in kinds.items()
        }
        json_path.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
