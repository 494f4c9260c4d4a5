"""Perplexity over windows of a text, each read from an empty state: the protocol of published tables.

The fp32 model, finished artifacts on ONNX Runtime, and plans, which are compressed here and read in torch.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import Tensor

from exporters.artifact.manifest import read_manifest
from toolchain.cli.building import RECIPE_OPTIONS
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.delivery.validate import SessionModel, artifact_session
from toolchain.model.catalog import load_model
from toolchain.model.family import LanguageModel, ModelOptions
from toolchain.model.text import read_text
from toolchain.pipeline.build import Notifier, calibrate
from toolchain.pipeline.job import of_plan, prepare
from toolchain.pipeline.spec import resolve
from toolchain.search.plan import read_plan, recipe_bytes

QUIET = Notifier(progress=lambda name, done, total: None, say=lambda text: None)


@dataclass(frozen=True)
class Row:
    """What was read; bytes of weights as stored; mean loss of every window in nats."""

    name: str
    bytes: int
    losses: Tensor

    def text(self, reference: Row) -> str:
        """Perplexity, the loss over the reference, and its standard error from the spread of the windows."""
        apart = self.losses - reference.losses
        error = float(apart.std()) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
        return (
            f"{self.name:40} {self.bytes / 1e6:8.1f} MB  perplexity {math.exp(float(self.losses.mean())):8.3f}  "
            f"{math.expm1(float(apart.mean())):+8.2%} (+- {error:.2%})"
        )


def window_losses(model: LanguageModel, ids: Tensor, windows: int, tokens: int) -> Tensor:
    """Mean loss in nats of the tokens of every window but its first, float64 [windows].

    Args:
        ids: int64 [n], of which the first windows * tokens are read.
    """
    found = []
    for window in ids[: windows * tokens].view(windows, tokens):
        with torch.inference_mode():
            logits, _ = model(window[None, :-1], model.initial_state(1))
            found.append(torch.nn.functional.cross_entropy(logits[0].double(), window[1:]))
    return torch.stack(found)


def planned(source: Path, path: Path, calibration: Path | None, folder: Path) -> tuple[LanguageModel, int]:
    """The model that a plan makes, and its bytes."""
    plan = read_plan(path)
    options = {key: value for key, value in plan.options.items() if key not in RECIPE_OPTIONS}
    given = {"model": source, "output": folder / "out", "calibration": calibration}
    calibrated = calibrate(of_plan(prepare(resolve(options | given, None, ())), plan), folder, QUIET)
    quantized = QuantizedModel(calibrated.model, calibrated.layers.encoded)
    return quantized.apply(plan.recipe), recipe_bytes(plan.recipe, calibrated.model.tree)


def finished(folder: Path) -> tuple[LanguageModel, int]:
    """An artifact on ONNX Runtime, and its bytes of weights."""
    manifest = read_manifest(folder)
    return SessionModel(artifact_session(folder, manifest.io)), manifest.bytes.weights


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("compressed", nargs=-1, type=click.Path(path_type=Path))
@click.option("--windows", default=20)
@click.option("--tokens", default=512)
@click.option("--calibration", type=click.Path(path_type=Path), help="Of plans; the shipped text if not given.")
@click.option("--threads", default=1)
def main(
    model: Path, data: Path, compressed: tuple[Path, ...], windows: int, tokens: int, calibration: Path | None,
    threads: int,
) -> None:  # fmt: skip
    """Read the beginning of DATA with MODEL and with what was made of it: folders of artifacts, or plan.json."""
    torch.set_num_threads(threads)
    exact = load_model(model, options=ModelOptions(context=tokens))
    ids = read_text(data, exact.tokenizer).ids
    if len(ids) < windows * tokens:
        raise click.ClickException(f"{data}: {len(ids)} tokens are less than {windows} windows of {tokens}")
    losses: Callable[[LanguageModel], Tensor] = lambda read: window_losses(read, ids, windows, tokens)  # noqa: E731
    reference = Row("fp32", 4 * exact.tree.params, losses(exact.forward))
    click.echo(reference.text(reference))
    for path in compressed:
        with tempfile.TemporaryDirectory() as folder:
            made = finished(path) if path.is_dir() else planned(model, path, calibration, Path(folder))
            click.echo(Row(str(path), made[1], losses(made[0])).text(reference))


if __name__ == "__main__":
    main()
