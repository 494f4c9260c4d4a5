"""Train a small BERT that spikes before its linear layers to classify sentences, from nothing, on a CPU."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional

from toolchain.model.classifier import Classes
from toolchain.model.spiking import Neurons, Spiking
from toolchain.model.spiking_bert import Added, SpikingBertClassifier, SpikingBertConfig

UNKNOWN = "[UNK]"
LABELS = ("negative", "positive")
FIRST_RATE = 0.2
"""Share of neurons that is expected to spike at the beginning: weights are drawn so that products have deviation 1."""


def read_rows(path: Path) -> list[tuple[str, int]]:
    """Text and class of every line of a label-first TSV with a header."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [(text.strip(), int(label)) for label, text in (line.split("\t") for line in lines)]


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Pieces of lower-case words, as BERT's, learned from the training texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=[UNKNOWN]))
    return tokenizer


def batches(rows: list[tuple[list[int], int]], size: int, random: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    """An epoch in random order: tokens [batch, time] and classes [batch]; texts of one length together, unpadded."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i in random.permutation(len(rows)):
        by_length[len(rows[i][0])].append(int(i))
    cut = [found[at : at + size] for found in by_length.values() for at in range(0, len(found), size)]
    random.shuffle(cut)
    return [(torch.tensor([rows[i][0] for i in some]), torch.tensor([rows[i][1] for i in some])) for some in cut]


def begin(model: SpikingBertClassifier) -> None:
    """Weights whose products neither silence nor saturate the neurons behind them."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 1 / math.sqrt(FIRST_RATE * module.in_features))
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0, 0.5)
    nn.init.normal_(model.classifier.weight, 0, 0.02)
    for block in model.encoder.layer:
        mixed = block.attention["output"]
        assert isinstance(mixed, Added)
        nn.init.constant_(mixed.spikes.threshold, FIRST_RATE)  # attention averages spikes: their rate, not their size


@torch.inference_mode()
def accuracy(model: SpikingBertClassifier, rows: list[tuple[list[int], int]]) -> float:
    """Share of texts whose best class is their label."""
    right = 0
    for tokens, labels in batches(rows, 64, np.random.default_rng(0)):
        scores, _ = model(tokens, [])
        right += int((scores[:, 0].argmax(-1) == labels).sum())
    return right / len(rows)


@torch.inference_mode()
def firing_rates(model: SpikingBertClassifier, rows: list[tuple[list[int], int]]) -> dict[str, float]:
    """Share of neurons that spike per step, of every group of them."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    hooks = []
    for path, module in model.named_modules():
        if isinstance(module, Neurons):

            def count(_m: Any, _i: Any, y: Tensor, found: list[int] = counts[path]) -> None:
                found[0] += int(torch.count_nonzero(y))
                found[1] += y.numel()

            hooks.append(module.register_forward_hook(count))  # fmt: skip
    accuracy(model, rows)
    for hook in hooks:
        hook.remove()
    return {path: fired / total for path, (fired, total) in counts.items()}


def write(model: SpikingBertClassifier, tokenizer: Tokenizer, folder: Path) -> None:
    """The model as a directory that slmc reads, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    config, spiking = model.config, model.config.spiking
    values = {
        "model_type": "spiking-bert", "num_attention_heads": config.heads, "hidden_act": config.activation,
        "layer_norm_eps": config.epsilon, "spike_steps": spiking.steps, "spike_levels": spiking.levels,
        "spike_leak": spiking.leak, "spike_reset": "soft" if spiking.soft else "hard", "pooling": "mean",
        "labels": list(model.classes.labels),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    save_file({name: t.half().contiguous() for name, t in model.state_dict().items()}, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))


@click.command()
@click.option("--train", "train_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--dev", "dev_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--vocabulary", default=6000)
@click.option("--layers", default=2)
@click.option("--width", default=128)
@click.option("--hidden", default=512)
@click.option("--heads", default=4)
@click.option("--positions", default=128, help="Tokens of the longest text.")
@click.option("--steps", default=2, help="Spike steps.")
@click.option("--levels", default=2, help="2: spikes 0, 1; 3: -1, 0, 1.")
@click.option("--leak", default=0.5)
@click.option("--soft/--hard", default=True, help="The reset.")
@click.option("--batch", default=64)
@click.option("--epochs", default=3)
@click.option("--rate", default=1e-3)
@click.option("--dropout", default=0.1, help="Of whole tokens, in training only.")
@click.option("--seed", default=0)
@click.option("--threads", default=1)
def main(
    train_path: Path, dev_path: Path, output: Path, vocabulary: int, layers: int, width: int, hidden: int, heads: int,
    positions: int, steps: int, levels: int, leak: float, soft: bool, batch: int, epochs: int, rate: float,
    dropout: float, seed: int, threads: int,
) -> None:  # fmt: skip
    """Classify the sentences of a TSV (label, sentence), such as SST-2's."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    texts = read_rows(train_path)
    tokenizer = train_tokenizer([text for text, _ in texts], vocabulary)
    unknown = tokenizer.token_to_id(UNKNOWN)
    train, dev = (
        [(e.ids[:positions], label) for e, (_, label) in zip(tokenizer.encode_batch([t for t, _ in rows]), rows,
                                                               strict=True) if e.ids]
        for rows in (texts, read_rows(dev_path))
    )  # fmt: skip
    spiking = Spiking(steps, levels, leak, soft)
    size = tokenizer.get_vocab_size()
    config = SpikingBertConfig(
        layers, width, hidden, size, heads, positions, positions, spiking, activation="relu", epsilon=1e-5
    )
    model = SpikingBertClassifier(config, Classes(LABELS, "mean", True))
    begin(model)
    neurons = [p for n, p in model.named_parameters() if "spikes" in n]
    others = [p for n, p in model.named_parameters() if "spikes" not in n]
    groups = [{"params": others, "weight_decay": 0.05}, {"params": neurons, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
    random = np.random.default_rng(seed)
    total = epochs * len(batches(train, batch, np.random.default_rng(0)))
    click.echo(f"{sum(p.numel() for p in model.parameters())} parameters, {len(train)} texts, {total} steps")
    step, began, mean = 0, time.process_time(), math.log(len(LABELS))
    for epoch in range(epochs):
        for tokens, labels in batches(train, batch, random):
            done = min(1.0, step / total)
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
            tokens = torch.where(torch.rand(tokens.shape) < dropout, unknown, tokens)
            scores, _ = model(tokens, [])
            loss = functional.cross_entropy(scores[:, 0], labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for p in neurons:
                    p.clamp_(min=0.05)  # a threshold or amplitude at 0 is no neuron
            step += 1
            mean += 0.01 * (loss.item() - mean)
            if step % 100 == 0:
                click.echo(f"step {step}/{total}: loss {mean:.4f}, {time.process_time() - began:.0f} s of CPU time")
        model.eval()
        click.echo(f"epoch {epoch + 1}: accuracy {accuracy(model, dev):.4f} on {len(dev)} texts")
        write(model, tokenizer, output)
        model.train()
    for path, fired in firing_rates(model, dev).items():
        click.echo(f"{path}: {fired:.3f} of its neurons spike per step")


if __name__ == "__main__":
    main()
