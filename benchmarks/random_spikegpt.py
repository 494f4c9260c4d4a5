"""Write a SpikeGPT checkpoint with random weights in the released layout, of the released 216M size by default."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "samples"))
from train_spikegpt import initialise

from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--layers", default=18)
@click.option("--width", default=768)
@click.option("--vocabulary", default=50277)
@click.option("--seed", default=0)
def main(output: Path, layers: int, width: int, vocabulary: int, seed: int) -> None:
    """A flat .pth state dict, float32, whose neurons fire as those of an untrained model do."""
    model = SpikeGpt(SpikeGptConfig(layers, width, 4 * width, vocabulary))
    initialise(model, torch.Generator().manual_seed(seed))
    torch.save(model.state_dict(), output)
    click.echo(f"{output}: {sum(p.numel() for p in model.parameters())} parameters")


if __name__ == "__main__":
    main()
