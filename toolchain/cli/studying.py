"""The command that compares methods and formats on a model: study."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from exporters.artifact.errors import SlmcError
from targets.device import quantities
from toolchain.calibration.entropy import BINS
from toolchain.cli.console import Console, strict
from toolchain.cli.opening import opened
from toolchain.cli.options import PATH, THREADS, command, model_options, text_options
from toolchain.compress.scores import ESparse
from toolchain.files.outputs import claim_folder
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.files.workspace import write_whole
from toolchain.model.text import read_text
from toolchain.study.cells import Cell, chosen
from toolchain.study.picture import draw
from toolchain.study.results import Result
from toolchain.study.run import Study, run_study, tuning_piece
from toolchain.study.table import COLUMNS, SHORT, cells, goal_outcomes, render


@click.command("study")
@model_options
@click.option("-o", "--output", type=PATH, required=True, help="Folder for the tables and for intermediate results.")
@text_options
@click.option("--formats", multiple=True, help="Only rows of these formats, as globs: '2:4*'. Repeatable.")
@click.option("--methods", multiple=True, help="Only rows of these methods, as globs: 'esparse*'. Repeatable.")
@click.option(
    "--layers",
    default=r"^(?!(lm_)?head$)",
    help="Linear layers to compress, as a regular expression. Default: all but the head.",
)
@click.option("--tokens", type=click.IntRange(min=128), default=20000, help="Evaluation tokens.")
@click.option("--calibration-tokens", type=click.IntRange(min=128), default=16384, help="Calibration tokens.")
@click.option(
    "--tune",
    type=click.IntRange(min=0),
    default=100,
    help="Steps of distillation for the method 'ours'; 0 leaves it out.",
)
@click.option(
    "--bins", type=click.IntRange(2, 10_000), default=BINS, help="Bins of the histograms for E-Sparse's entropies."
)
@click.option(
    "--alpha", type=click.FloatRange(min=0), default=ESparse.alpha, help="Weight of the norm in E-Sparse's score."
)
@click.option("--threads", type=THREADS, default=1)
@command
def study_command(
    console: Console, model: Path, tokenizer: Path | None, family: str | None, output: Path, calibration: Path | None,
    eval: Path | None, text_field: str | None,
    formats: tuple[str, ...], methods: tuple[str, ...], layers: str, tokens: int, calibration_tokens: int, tune: int,
    bins: int, alpha: float, threads: int,
) -> int:  # fmt: skip
    """Compare pruning, quantization and decomposition methods on MODEL: quality, bytes, time, in one table.

    What was paid for stays in the folder: a study that is interrupted, or asked for more rows, goes on.
    """
    wanted = chosen(formats, methods, tuning=tune > 0)
    torch.set_num_threads(threads)
    loaded = opened(console, model, tokenizer, family)
    if loaded.classes is not None:
        raise SlmcError(f"{model}: a study judges perplexity, and this model classifies; give a language model")
    context = loaded.forward.context
    source = calibration or SHIPPED_TEXTS / "calibration.txt"
    seen, read = (read_text(source, loaded.tokenizer, piece, text_field) for piece in (context, tuning_piece(loaded)))
    judged = read_text(eval or SHIPPED_TEXTS / "evaluation.txt", loaded.tokenizer, context, text_field)
    study = Study(
        model=loaded,
        calibration=seen.head(calibration_tokens),
        tuning=read,
        evaluation=judged.head(tokens),
        layers=layers,
        steps=tune,
        folder=output,
        bins=bins,
        alpha=alpha,
    )
    title = (
        f"{loaded.name}: {len(study.compressed)} layers compressed, judged on {len(study.evaluation.ids)} tokens of "
        f"{study.evaluation.name}"
    )
    _check_output(output)
    results: dict[Cell, Result] = {}

    def done(cell: Cell, result: Result) -> None:
        results[cell] = result
        console.note(
            f"{cell.name}: perplexity {result.perplexity:.3f} ({quantities.signed_percent(result.relative_drop)})"
        )
        _write(output, title, [results[c] for c in wanted if c in results])

    try:
        with console.working():
            found = list(run_study(study, wanted, console.progress, done).values())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{output} keeps what was paid for; repeat the command to go on") from None
    rows = [[cells(r)[i] for i in SHORT] for r in found]
    console.table(title, [COLUMNS[i] for i in SHORT], rows)
    document = {"title": title, "cells": [dataclasses.asdict(r) for r in found],
                "bars": [dataclasses.asdict(v) | {"met": v.met} for v in goal_outcomes(found)]}  # fmt: skip
    console.result(document, f"{output / 'study.md'}, study.json, study.svg")
    return 0


def _check_output(output: Path) -> None:
    """Raise SlmcError before any work if the folder cannot be one, or holds what is not a study's."""
    claim_folder(output, ".slmc-study", ("cells.jsonl", "study.json", "study.md", "study.svg"), "a study")


def _write(output: Path, title: str, results: Sequence[Result]) -> None:
    """The tables and the picture of what is known so far, each whole."""
    document = {"title": title, "cells": [dataclasses.asdict(r) for r in results]}
    write_whole(output / "study.json", json.dumps(strict(document), indent=1) + "\n")
    write_whole(output / "study.md", render(results, title))
    write_whole(output / "study.svg", draw(results, title))
