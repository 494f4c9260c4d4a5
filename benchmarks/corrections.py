"""What stands beside integers or in their place: error of the layers' outputs, by kind of layer, for as many bits."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.nonuniform import NONUNIFORM_BITS
from toolchain.calibration.statistics import gather_statistics
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig
from toolchain.pipeline.job import prepare
from toolchain.pipeline.spec import resolve

BESIDE = ("int{}-g128", "int{}-g64", "int{}-g32", "diag+int{}-g64", "lr2+int{}-g64", "lr4+int{}-g64", "lr8+int{}-g64")
"""In the catalogue."""

TABLES = ("nl{}-g128", "nl{}-g64", "nl{}-g32")
"""Likewise, of 3 and 4 bits."""

OUTLIERS = 0.005
"""Share of the weights that are kept as they are, in 32 bits each (value and place): SqueezeLLM's dense and sparse."""


def lost(weight: Tensor, stored: Tensor, hessian: Tensor) -> float:
    """tr(E H E^T) / tr(W H W^T)."""
    error = weight - stored
    return float(((error @ hessian) * error).sum() / ((weight @ hessian) * weight).sum())


def diagonal(weight: Tensor) -> float:
    return float(weight.diagonal().square().sum() / weight.square().sum())


def rounded(weight: Tensor, name: str, hessian: Tensor, method: str = "gptq") -> Tensor:
    encoded = compress(weight, LayerConfig(name, method), hessian)
    return torch.from_numpy(format_named(encoded.format).decode(encoded))


def clustered(weight: Tensor, hessian: Tensor, bits: int) -> Tensor:
    """2^bits float16 values of each row by k-means, weights counted by their input's power, after SqueezeLLM."""
    power, levels = hessian.diagonal(), 2**bits
    values = torch.quantile(weight, torch.linspace(0.5 / levels, 1 - 0.5 / levels, levels), dim=1).T.contiguous()
    for _ in range(40):
        nearest = (weight[:, :, None] - values[:, None, :]).abs().argmin(2)
        for level in range(levels):
            share = (nearest == level) * power
            total = share.sum(1)
            values[:, level] = torch.where(
                total > 0, (share * weight).sum(1) / total.clamp_min(1e-30), values[:, level]
            )
    return torch.gather(values.half().float(), 1, nearest)


def tried(weight: Tensor, hessian: Tensor, bits: int) -> Iterator[tuple[str, float, Tensor]]:
    """Name, bits per weight and the stored matrix of everything that this layer can have."""
    rows, cols = weight.shape
    for form in BESIDE + (TABLES if bits in NONUNIFORM_BITS else ()):
        name = form.format(bits)
        fmt = format_named(name)
        if fmt.takes(rows, cols):
            yield name, 8 * bytes_for(fmt, rows, cols) / weight.numel(), rounded(weight, name, hessian)
    each = 8 * bytes_for(format_named(f"int{bits}-g64"), rows, cols) / weight.numel()
    yield f"int{bits}-g64, no feedback", each, rounded(weight, f"int{bits}-g64", hessian, "range")
    yield f"k-means of rows, {bits} bits, no feedback", bits + 16 * 2**bits / cols, clustered(weight, hessian, bits)
    score = weight.abs() * hessian.diagonal().sqrt()
    kept = score >= score.flatten().topk(int(OUTLIERS * weight.numel())).values[-1]
    inliers = rounded(torch.where(kept, 0.0, weight), f"int{bits}-g64", hessian)
    yield f"int{bits}-g64, {OUTLIERS:.1%} kept apart", each + 32 * OUTLIERS, torch.where(kept, weight, inliers)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--calibration", type=click.Path(path_type=Path), help="Text; prose of our own if not given.")
@click.option("--bits", multiple=True, default=(2, 3), type=int)
@click.option("--layer", "patterns", multiple=True, default=("*",), help="Globs of paths.")
def main(model: Path, calibration: Path | None, bits: tuple[int, ...], patterns: tuple[str, ...]) -> None:
    """Measure every linear layer of MODEL but its head, and print a table in Markdown."""
    job = prepare(resolve({"model": model, "output": Path("unused"), "calibration": calibration}, None, ()))
    with tempfile.TemporaryDirectory() as folder:
        statistics = gather_statistics(
            job.model,
            job.calibration,
            Path(folder),
            lambda stage, done, total: None,
            seed=0,
            entropy=False,
        )
        layers = [x for x in job.model.tree.layers if x.kind == "linear" and not x.exact]
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for layer in layers[:-1]:
            if not any(fnmatch.fnmatchcase(layer.path, pattern) for pattern in patterns):
                continue
            weight, hessian = job.model.weight(layer.path), statistics.hessians[layer.path]
            kind = ".".join(layer.path.split(".")[-2:])
            found.setdefault(("on the diagonal, of the weights' squares", kind), []).append((0.0, diagonal(weight)))
            for width in bits:
                for name, each, stored in tried(weight, hessian, width):
                    found.setdefault((name, kind), []).append((each, lost(weight, stored, hessian)))
            click.echo(layer.path, err=True)
    if not found:
        raise SlmcError(f"{model}: no linear layers")
    kinds = list(dict.fromkeys(kind for _, kind in found))
    click.echo(f"| | bits | {' | '.join(kinds)} |\n|---|---|{'---|' * len(kinds)}")
    for name in dict.fromkeys(name for name, _ in found):
        own = [found.get((name, kind)) for kind in kinds]
        each = [cell[0][0] for cell in own if cell]
        cells = [f"{100 * sum(e for _, e in cell) / len(cell):.3f} %" if cell else "" for cell in own]
        spread = f"{min(each):.2f} to {max(each):.2f}" if max(each) - min(each) > 0.005 else f"{each[0]:.2f}"
        click.echo(f"| {name} | {spread} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
