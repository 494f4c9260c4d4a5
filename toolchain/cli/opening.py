"""Open a model for a command, and print what was found out about it."""

from __future__ import annotations

from pathlib import Path

from toolchain.cli.console import Console
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import ModelOptions


def opened(
    console: Console, path: Path, tokenizer: Path | None, family: str | None, context: int | None = None
) -> LoadedModel:
    """A model, its notes on the console.

    Raises:
        SlmcError: as `load_model`.
    """
    model = load_model(path, tokenizer, ModelOptions(context, family=family))
    tell(console, model)
    return model


def tell(console: Console, model: LoadedModel) -> None:
    """A line for everything that the user should know of how a model was read."""
    for note in model.notes:
        console.note(f"note: {note}")
