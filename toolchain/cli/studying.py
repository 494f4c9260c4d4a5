"""The command that compares methods and formats on a model: study."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import torch

from targets.device import quantities
from toolchain.calibration.entropy import BINS
from toolchain.cli.console import Console, strict
from toolchain.cli.opening import opened
from toolchain.cli.options import PATH, THREADS, command, model_options, text_options
from toolchain.compress.scores import ESparse
from toolchain.files.outputs import claim_folder
from toolchain.files.workspace import write_whole
from toolchain.pipeline.dask_client import DEATHS, connected_client, ended, explained, memory_bound
from toolchain.study.cells import Cell, chosen
from toolchain.study.opening import StudyOptions, cell_result, open_study
from toolchain.study.picture import draw
from toolchain.study.results import Result
from toolchain.study.run import SideBySide, run_study
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
@click.option(
    "--workers", type=click.IntRange(1, 256), default=1, help="Processes that work rows out, on this machine."
)
@click.option("--cluster", help="Dask scheduler whose workers do, who see the same paths: tcp://host:8786.")
@click.option("--worker-memory", help="The most that one of --workers may hold: 4GB. Default: an equal share.")
@command
def study_command(
    console: Console, model: Path, tokenizer: Path | None, family: str | None, output: Path, calibration: Path | None,
    eval: Path | None, text_field: str | None,
    formats: tuple[str, ...], methods: tuple[str, ...], layers: str, tokens: int, calibration_tokens: int, tune: int,
    bins: int, alpha: float, threads: int, workers: int, cluster: str | None, worker_memory: str | None,
) -> int:  # fmt: skip
    """Compare pruning, quantization and decomposition methods on MODEL: quality, bytes, time, in one table.

    What was paid for stays in the folder: a study that is interrupted, or asked for more rows, goes on.
    """
    wanted = chosen(formats, methods, tuning=tune > 0)
    torch.set_num_threads(threads)
    loaded = opened(console, model, tokenizer, family)
    options = StudyOptions(
        model=model.resolve(), tokenizer=tokenizer and tokenizer.resolve(), family=family, folder=output.resolve(),
        calibration=calibration and calibration.resolve(), eval=eval and eval.resolve(), text_field=text_field,
        layers=layers, tokens=tokens, calibration_tokens=calibration_tokens, tune=tune, bins=bins, alpha=alpha,
        threads=threads,
    )  # fmt: skip
    study = open_study(options, loaded)
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
        with console.working(), _team(options, workers, cluster, worker_memory, console) as side_by_side:
            found = list(run_study(study, wanted, console.progress, done, side_by_side).values())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{output} keeps what was paid for; repeat the command to go on") from None
    rows = [[cells(r)[i] for i in SHORT] for r in found]
    console.table(title, [COLUMNS[i] for i in SHORT], rows)
    document = {"title": title, "cells": [dataclasses.asdict(r) for r in found],
                "bars": [dataclasses.asdict(v) | {"met": v.met} for v in goal_outcomes(found)]}  # fmt: skip
    console.result(document, f"{output / 'study.md'}, study.json, study.svg")
    return 0


@contextlib.contextmanager
def _team(
    options: StudyOptions, workers: int, cluster: str | None, memory: str | None, console: Console
) -> Iterator[SideBySide | None]:
    """How cells are worked out by workers, if there are any."""
    if workers == 1 and cluster is None:
        yield None
        return
    with connected_client(workers, cluster, memory_bound(memory, workers), console.note) as client:

        def work(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Result]]:
            with explained():
                given = {client.submit(cell_result, options, c, pure=False, retries=DEATHS): c for c in cells}
                for future in ended(given):
                    yield given[future], future.result()

        yield work


def _check_output(output: Path) -> None:
    """Raise SlmcError before any work if the folder cannot be one, or holds what is not a study's."""
    claim_folder(output, ".slmc-study", ("cells.jsonl", "study.json", "study.md", "study.svg"), "a study")


def _write(output: Path, title: str, results: Sequence[Result]) -> None:
    """The tables and the picture of what is known so far, each whole."""
    document = {"title": title, "cells": [dataclasses.asdict(r) for r in results]}
    write_whole(output / "study.json", json.dumps(strict(document), indent=1) + "\n")
    write_whole(output / "study.md", render(results, title))
    write_whole(output / "study.svg", draw(results, title))
