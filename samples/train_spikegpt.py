"""Train a small SpikeGPT with its tokenizer on plain text files, on a CPU, resumably."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig

HELD_OUT = 0.02
"""The last 2 % of every file are never trained on."""

STREAM_WINDOWS = 8
"""A stream of text runs this many windows on average before it starts elsewhere with an empty state."""


@dataclass(frozen=True)
class Corpus:
    """One text file, cut into what is trained on and what is held out."""

    name: str
    train: str
    held_out: str


def read_corpus(path: Path) -> Corpus:
    """A UTF-8 file; of a .tsv the second column, without its header line (GLUE's SST-2)."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".tsv":
        text = "\n".join(line.split("\t", 1)[1].strip() for line in text.splitlines()[1:] if "\t" in line)
    cut = text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
    return Corpus(f"{path.parent.name}/{path.name}", text[:cut], text[cut:])


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocabulary` entries, id 0 being the end of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((line for text in texts for line in text.splitlines(keepends=True)), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Token ids of a text, encoded in pieces of whole lines so that memory stays small."""
    lines = text.splitlines(keepends=True)
    pieces = ["".join(lines[i : i + 1000]) for i in range(0, len(lines), 1000)]
    return np.concatenate([np.array(e.ids, np.int64) for e in tokenizer.encode_batch(pieces)])


def initialise(model: SpikeGpt, generator: torch.Generator) -> None:
    """RWKV-4's decays and mixes; projections into the LIF neurons large enough that every neuron can fire."""
    width, layers = model.config.hidden_size, model.config.layers
    channel = torch.arange(width) / (width - 1)
    with torch.no_grad():
        model.emb.weight.normal_(0, 0.1, generator=generator)
        model.head.weight.normal_(0, 0.5 / math.sqrt(width), generator=generator)
        for i, block in enumerate(model.blocks):
            depth, rest = i / max(layers - 1, 1), 1 - i / layers
            att, ffn = block.att, block.ffn
            att.time_decay.copy_(-5 + 8 * channel ** (0.7 + 1.3 * depth))
            att.time_first.copy_(math.log(0.3) + ((torch.arange(width) + 1) % 3 - 1) * 0.5)
            att.time_mix_k.copy_((channel**rest)[None, None])
            att.time_mix_v.copy_((channel**rest + 0.3 * depth)[None, None])
            att.time_mix_r.copy_((channel ** (0.5 * rest))[None, None])
            ffn.time_mix_k.copy_((channel**rest)[None, None])
            ffn.time_mix_r.copy_((channel**rest)[None, None])
            for linear, gain in ((att.key, 0.5), (att.value, 1), (att.receptance, 0.5), (att.output, 4),
                                 (ffn.key, 1), (ffn.receptance, 0.5), (ffn.value, 2.5)):  # fmt: skip
                linear.weight.normal_(0, gain / math.sqrt(linear.in_features), generator=generator)


class Streams:
    """Parallel readers of the training tokens that carry their state from window to window."""

    def __init__(self, tokens: np.ndarray, batch: int, window: int, seed: int) -> None:
        self.tokens, self.window = tokens, window
        self.random = np.random.default_rng(seed)
        self.at = self.random.integers(0, len(tokens) - window - 1, batch)

    def next(self) -> tuple[Tensor, Tensor]:
        """Windows of tokens [batch, window + 1], and which streams begin anew [batch, 1]."""
        last = len(self.tokens) - self.window - 1
        fresh = (self.random.random(len(self.at)) < 1 / STREAM_WINDOWS) | (self.at > last)
        self.at = np.where(fresh, self.random.integers(0, last, len(self.at)), self.at)
        windows = np.stack([self.tokens[i : i + self.window + 1] for i in self.at])
        self.at = self.at + self.window
        return torch.from_numpy(windows), torch.from_numpy(fresh)[:, None]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 2 % of the steps, then a cosine down to 2 % of the peak."""
    warm = max(1, steps // 50)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


@torch.inference_mode()
def bits_per_byte(model: SpikeGpt, tokens: np.ndarray, n_bytes: int, chunk: int = 512) -> float:
    """Cross-entropy of a text read in one go with carried state, in bits per byte of its UTF-8."""
    state, total = model.initial_state(1), 0.0
    ids = torch.from_numpy(tokens)[None]
    for start in range(0, ids.shape[1] - 1, chunk):
        piece = ids[:, start : start + chunk + 1]
        logits, state = model(piece[:, :-1], state)
        total += float(functional.cross_entropy(logits[0].float(), piece[0, 1:], reduction="sum"))
    return total / math.log(2) / n_bytes


def firing_rates(model: SpikeGpt, tokens: np.ndarray) -> dict[str, float]:
    """Share of neurons that fire, for every LIF layer, over one stretch of text."""
    counted: dict[str, float] = {}

    class Counting(TorchDispatchMode):
        """Sees every layer of neurons in order: time-mix, then channel-mix, block by block."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if func in (torch.ops.slmc.spike_add.default, torch.ops.slmc.gated_spike_add.default):
                block, part = divmod(len(counted), 2)
                spikes = (result[0] - args[0]).round()
                counted[f"blocks.{block}.{('att', 'ffn')[part]}"] = float(spikes.mean())
            return result

    with torch.no_grad(), Counting():
        model(torch.from_numpy(tokens)[None], model.initial_state(1))
    return counted


def optimizer_for(model: SpikeGpt, peak: float) -> torch.optim.AdamW:
    """AdamW; weight decay on the projections only."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n != "emb.weight"]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or n == "emb.weight"]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99), eps=1e-8, fused=True)


def losses(
    model: SpikeGpt, optimizer: torch.optim.Optimizer, streams: Streams, first: int, steps: int, peak: float
) -> Iterator[tuple[int, float]]:
    """Train from step `first` to `steps`; yields after each step its index and loss in nats per token."""
    state = model.initial_state(len(streams.at))
    start = model.initial_state(1)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        windows, fresh = streams.next()
        state = [torch.where(fresh, begin, s.detach()) for begin, s in zip(start, state, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            logits, state = model(windows[:, :-1], state)
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield step, float(loss.detach())


def save_model(model: SpikeGpt, tokenizer: Tokenizer, folder: Path) -> None:
    """A model directory: config.json, model.safetensors in fp16, tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    # An embedding whose sign alone counts must keep it in fp16: tiny values would round to minus or plus zero.
    weights = {n: p.detach().clone() for n, p in model.state_dict().items()}
    if model.config.embed_binarize:
        emb = weights["emb.weight"]
        weights["emb.weight"] = torch.where(emb >= 0, emb.clamp(min=1e-4), emb.clamp(max=-1e-4))
    save_file({n: w.to(torch.float16).contiguous() for n, w in weights.items()}, folder / "model.safetensors")
    known = {"hidden_size": "width", "intermediate_size": "hidden"}
    config = {known.get(name, name): value for name, value in asdict(model.config).items()}
    (folder / "config.json").write_text(json.dumps({"model_type": "spikegpt", **config}, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def report(model: SpikeGpt, tokenizer: Tokenizer, corpora: list[Corpus], test: Path | None) -> dict[str, object]:
    """Bits per byte on the held-out parts and a test text, and the firing rates."""
    parts = {c.name: (encode(tokenizer, c.held_out), len(c.held_out.encode())) for c in corpora}
    bits = {name: bits_per_byte(model, tokens, size) for name, (tokens, size) in parts.items()}
    total = sum(size for _, size in parts.values())
    result: dict[str, object] = {
        "held_out": {name: round(b, 4) for name, b in bits.items()},
        "held_out_total": round(sum(bits[n] * size for n, (_, size) in parts.items()) / total, 4),
        "firing": {n: round(r, 3) for n, r in firing_rates(model, next(iter(parts.values()))[0][:2000]).items()},
    }
    if test:
        text = test.read_text(encoding="utf-8")
        result["test"] = round(bits_per_byte(model, encode(tokenizer, text), len(text.encode())), 4)
    return result


@dataclass
class Run:
    """A training run that can stop and go on: model, tokenizer, optimizer, and the next step."""

    model: SpikeGpt
    tokenizer: Tokenizer
    optimizer: torch.optim.AdamW
    step: int = 0

    def save(self, path: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
                 "tokenizer": self.tokenizer.to_str()}  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


def start(config: SpikeGptConfig, corpora: list[Corpus], checkpoint: Path, rate: float, seed: int) -> Run:
    """A new run, or the one that a checkpoint holds."""
    model = SpikeGpt(config)
    initialise(model, torch.Generator().manual_seed(seed))
    optimizer = optimizer_for(model, rate)
    if not checkpoint.exists():
        return Run(model, train_tokenizer([c.train for c in corpora], config.vocabulary), optimizer)
    saved = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return Run(model, Tokenizer.from_str(saved["tokenizer"]), optimizer, saved["step"])


def report_pace(step: int, steps: int, pace: float, recent: list[float]) -> None:
    """Say the mean of recent losses and how long the rest takes at `pace` seconds a step; the losses are forgotten."""
    left = pace * (steps - step) / 60
    click.echo(f"step {step} loss {np.mean(recent):.4f}, {pace:.2f} s per step, {left:.0f} min left")
    recent.clear()


@click.command()
@click.option("--text", "texts", type=click.Path(exists=True, path_type=Path), multiple=True, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Model directory to write.")
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="Resumed from if it exists.")
@click.option("--test", type=click.Path(exists=True, path_type=Path), help="A text to report bits per byte on.")
@click.option("--layers", default=6)
@click.option("--width", default=256)
@click.option("--vocabulary", default=2048)
@click.option("--window", default=256)
@click.option("--batch", default=16)
@click.option("--steps", default=5000)
@click.option("--rate", default=1.2e-3)
@click.option("--dropout", default=0.05)
@click.option("--seed", default=0)
@click.option("--threads", default=1)
def main(
    texts: tuple[Path, ...], out: Path, checkpoint: Path, test: Path | None, layers: int, width: int, vocabulary: int,
    window: int, batch: int, steps: int, rate: float, dropout: float, seed: int, threads: int,
) -> None:  # fmt: skip
    """Train, report on held-out text, and write a model directory."""
    torch.set_num_threads(threads)
    corpora = [read_corpus(path) for path in texts]
    config = SpikeGptConfig(layers, width, 4 * width, vocabulary, dropout=dropout)
    run = start(config, corpora, checkpoint, rate, seed)
    end = np.array([0])
    tokens = np.concatenate([part for c in corpora for part in (encode(run.tokenizer, c.train), end)])
    count = sum(p.numel() for p in run.model.parameters())
    click.echo(f"{count} parameters, {len(tokens)} training tokens, step {run.step} of {steps}")
    streams, first, began = Streams(tokens, batch, window, seed + run.step), run.step, time.time()
    recent: list[float] = []
    for step, loss in losses(run.model, run.optimizer, streams, first, steps, rate):
        recent.append(loss)
        run.step = step + 1
        if run.step % 50 == 0:
            report_pace(run.step, steps, (time.time() - began) / (run.step - first), recent)
        if run.step % 250 == 0 or run.step == steps:
            run.save(checkpoint)
            save_model(run.model, run.tokenizer, out)
            run.model.eval()
            click.echo(json.dumps(report(run.model, run.tokenizer, corpora, test if run.step == steps else None)))
            run.model.train()


if __name__ == "__main__":
    main()
