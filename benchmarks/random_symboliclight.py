"""Write a SymbolicLight V1 checkpoint with random weights that fires at chosen rates, in the form of the releases.

A normed stream with weights g and no bias spikes at rate r for g = 1 / z, z the normal quantile of 1 - r; what `up`
gives must have that spread too. The encoder's neurons add up what they are given, so that its g is found by running
them on normal values.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import NormalDist

import click
import torch
from random_llama import write_tokenizer
from torch import Tensor

from exporters.ops.channels import plif
from toolchain.model.symboliclight import CLIP, SymbolicLight, SymbolicLightConfig

SIZES = {
    "194m": SymbolicLightConfig(
        layers=12, hidden_size=768, intermediate_size=4096, vocabulary=48000, heads=12, bottleneck=192, window=256,
        prior=0.1,
    ),
    "874m": SymbolicLightConfig(
        layers=22, hidden_size=1536, intermediate_size=6144, vocabulary=57344, heads=24, bottleneck=384, window=512,
    ),
}  # fmt: skip
"""The shapes of the two releases."""

ENCODER_RATE, BLOCK_RATE = 0.0456, 0.0623
"""Published for the larger one: 95.44 % and 93.77 % zeros (docs/benchmarks/symboliclight.md)."""


def spread_for(rate: float) -> float:
    """Standard deviation of normal values of which this share is 1 or more."""
    return 1 / NormalDist().inv_cdf(1 - rate)


def encoder_spread(rate: float, leak: float) -> float:
    """The same for values that leaky neurons add up."""
    drive = torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(1))
    one, low, high = torch.tensor(1.0), 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        spikes, _ = plif(middle * drive, torch.tensor(leak), one, one, one, torch.zeros(1, 64), -CLIP, CLIP, 0, 0, 0)
        low, high = (middle, high) if float(spikes.mean()) < rate else (low, middle)
    return high


def tensors(config: SymbolicLightConfig, block_rate: float, hidden_rate: float, seed: int) -> dict[str, Tensor]:
    """Normal weights that keep the size of their inputs; norms and `up` such that spikes come at the rates."""
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in SymbolicLight(config).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    stream, hidden = spread_for(block_rate), spread_for(hidden_rate)
    norms = {"spike_encoder.norm.weight": encoder_spread(ENCODER_RATE, config.leak)}
    found = {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            found[name] = torch.randn(shape, generator=generator)
            if "embedding" not in name:
                found[name] /= shape[1] ** 0.5
            if name.endswith("ffn.up.weight"):
                found[name] *= hidden / stream
        elif name.endswith("norm.weight"):
            found[name] = torch.full(shape, norms.get(name, stream))
        else:
            found[name] = torch.full(shape, 0.1 if name.endswith("prior_weight") else 0.0)
    return found


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--size", type=click.Choice(sorted(SIZES)), default="194m")
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), required=True, help="tokenizer.json, BPE.")
@click.option("--block-rate", default=BLOCK_RATE, help="Spikes of the stream between blocks.")
@click.option("--hidden-rate", default=BLOCK_RATE, help="Spikes before ffn.down; not published.")
@click.option("--layers", type=int, help="Fewer blocks than the release has.")
@click.option("--seed", default=0)
def main(
    output: Path, size: str, tokenizer: Path, block_rate: float, hidden_rate: float, layers: int | None, seed: int
) -> None:
    """A folder with model.pt, whose dictionary holds the config too, and a tokenizer."""
    output.mkdir(parents=True)
    config = SIZES[size] if layers is None else dataclasses.replace(SIZES[size], layers=layers)
    state = tensors(config, block_rate, hidden_rate, seed)
    said = {
        "vocab_size": config.vocabulary, "embed_dim": config.hidden_size, "n_layers": config.layers,
        "n_heads": config.heads, "head_dim": config.hidden_size // config.heads,
        "intermediate_dim": config.intermediate_size, "sparse_attn_window": config.window,
        "n_global_anchors": config.anchors, "spike_threshold": config.threshold, "leak_factor": config.leak,
        "rope_theta": config.theta, "enable_sparse_attn": True, "enable_dynamic_prior": True,
    }  # fmt: skip
    torch.save({"config": said, "model": state}, output / "model.pt")
    write_tokenizer(tokenizer, output / "tokenizer.json", config.vocabulary)
    click.echo(f"{output}: {sum(t.numel() for t in state.values())} parameters")


if __name__ == "__main__":
    main()
