"""A study by its options: what the command opens, and what a worker opens once more to work out single cells."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from exporters.artifact.errors import SlmcError
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import ModelOptions
from toolchain.model.text import read_text
from toolchain.study.cells import Cell
from toolchain.study.results import Result
from toolchain.study.run import Runner, Study, tuning_piece


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """As the command line has them; see `Study`. calibration, eval: None for the shipped texts."""

    model: Path
    tokenizer: Path | None
    family: str | None
    folder: Path
    calibration: Path | None
    eval: Path | None
    text_field: str | None
    layers: str
    tokens: int
    calibration_tokens: int
    tune: int
    bins: int
    alpha: float
    threads: int


def open_study(options: StudyOptions, model: LoadedModel) -> Study:
    """The texts of a study, read for a model that is open.

    Raises:
        SlmcError: the model classifies, or a text cannot be read.
    """
    torch.set_num_threads(options.threads)
    if model.classes is not None:
        raise SlmcError(f"{options.model}: a study judges perplexity, and this model classifies; give a language model")
    source, judged = (
        given or SHIPPED_TEXTS / f"{name}.txt"
        for given, name in ((options.calibration, "calibration"), (options.eval, "evaluation"))
    )
    context = model.forward.context
    seen, read = (
        read_text(source, model.tokenizer, piece, options.text_field) for piece in (context, tuning_piece(model))
    )
    return Study(
        model=model,
        calibration=seen.head(options.calibration_tokens),
        tuning=read,
        evaluation=read_text(judged, model.tokenizer, context, options.text_field).head(options.tokens),
        layers=options.layers,
        steps=options.tune,
        folder=options.folder,
        bins=options.bins,
        alpha=options.alpha,
    )


def cell_result(options: StudyOptions, cell: Cell) -> Result:
    """A task of a worker that sees the study's folder, where the statistics are kept."""
    return _runner(options).result(cell)


@functools.lru_cache(maxsize=1)
def _runner(options: StudyOptions) -> Runner:
    model = load_model(options.model, options.tokenizer, ModelOptions(family=options.family))
    return Runner(open_study(options, model), lambda stage, done, total: None)
