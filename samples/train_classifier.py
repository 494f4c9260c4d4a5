"""Fine-tune a pre-trained SpikeGPT into a classifier of sentences, on a CPU, resumably."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from train_spikegpt import report_pace, save_model

from toolchain.model.catalog import load_model
from toolchain.model.classifier import Classes
from toolchain.model.sentences import read_rows
from toolchain.model.spikegpt import SpikeGpt, SpikeGptClassifier
from toolchain.model.text_files import read_content


@dataclass(frozen=True)
class Sentence:
    """Token ids [n] of one text, and what is labelled in it: spans [k, 2] of tokens (first, after last), classes [k].

    The whole text is the first span.
    """

    ids: Tensor
    spans: Tensor
    labels: Tensor


def read_labelled(path: Path, labels: tuple[str, ...]) -> list[tuple[str, int]]:
    """Text and class of every line of a table as slmc reads it, the class by its number or name."""
    rows = read_rows(path, read_content(path))
    return [(row.text, labels.index(row.label) if row.label in labels else int(row.label or 0)) for row in rows]


def nested(rows: list[tuple[str, int]]) -> dict[str, list[tuple[int, int, int]]]:
    """SST-2's training file labels a sentence and its phrases in separate lines: phrases go to where they stand.

    A text that is part of no other, to (first character, after last, class) of all that is labelled in it. Words are
    separated by one space. Read once with all its phrases, a sentence costs a fifth of reading each on its own.
    """
    found: dict[str, list[tuple[int, int, int]]] = {}
    spans: dict[str, tuple[str, int, int]] = {}
    for text, label in sorted(rows, key=lambda row: -len(row[0])):
        if text not in spans:
            found[text] = []
            gaps = [i for i, letter in enumerate(text) if letter == " "]
            for first in (0, *(gap + 1 for gap in gaps)):
                for end in (*gaps, len(text)):
                    if end > first:
                        spans.setdefault(text[first:end], (text, first, end))
        holder, first, end = spans[text]
        found[holder].append((first, end, label))
    return found


def sentence(encoding: Encoding, labelled: list[tuple[int, int, int]]) -> Sentence:
    """Spans of characters as spans of the tokens that they touch."""
    ends = np.array([end for _, end in encoding.offsets])
    spans = [(np.searchsorted(ends, first, "right"), np.searchsorted(ends, end, "left") + 1)
             for first, end, _ in labelled]  # fmt: skip
    return Sentence(torch.tensor(encoding.ids), torch.tensor(np.array(spans)), torch.tensor([c for *_, c in labelled]))


def sentences(tokenizer: Tokenizer, rows: list[tuple[str, int]], phrases: bool) -> list[Sentence]:
    """Every row a sentence of its own, or phrases within their sentences."""
    found = list(nested(rows).items()) if phrases else [(text, [(0, len(text), label)]) for text, label in rows]
    encoded = tokenizer.encode_batch([text for text, _ in found])
    return [sentence(e, labelled) for e, (_, labelled) in zip(encoded, found, strict=True)]


def starting_point(
    path: Path, labels: tuple[str, ...], dropout: float, seed: int
) -> tuple[SpikeGptClassifier, Tokenizer]:
    """A pre-trained SpikeGPT with a fresh classifier in the place of its head, and its tokenizer."""
    loaded = load_model(path)
    assert isinstance(loaded.module, SpikeGpt)
    model = SpikeGptClassifier(replace(loaded.module.config, dropout=dropout), Classes(labels))
    weights = {n: w for n, w in loaded.module.state_dict().items() if n != "head.weight"}
    scores = torch.randn(len(labels), model.hidden_size, generator=torch.Generator().manual_seed(seed)) * 0.02
    model.load_state_dict(weights | {"classifier.weight": scores})
    return model.train(), loaded.tokenizer


def span_scores(model: SpikeGptClassifier, batch: list[Sentence]) -> Tensor:
    """Scores [spans, labels] of the mean over every span of every sentence, one sentence after the other.

    Sentences are padded at their ends; the model reads forward only, so that padding reaches no span.
    """
    tokens = nn.utils.rnn.pad_sequence([s.ids for s in batch], batch_first=True)
    hidden, _ = model.hidden(tokens, model.initial_state(len(batch)))
    sums = functional.pad(hidden.double().cumsum(1), (0, 0, 1, 0))  # float64: differences of running sums follow
    pooled = [(sums[i, s.spans[:, 1]] - sums[i, s.spans[:, 0]]) / (s.spans[:, 1:] - s.spans[:, :1])
              for i, s in enumerate(batch)]  # fmt: skip
    features = functional.dropout(torch.cat(pooled).float(), model.config.dropout, model.training)
    scores: Tensor = model.classifier(features)
    return scores


def loss_of(model: SpikeGptClassifier, batch: list[Sentence]) -> Tensor:
    """Cross-entropy in nats: the mean over sentences and the mean over phrases, in equal parts."""
    labels = torch.cat([s.labels for s in batch])
    losses = functional.cross_entropy(span_scores(model, batch), labels, reduction="none")
    whole = torch.cat([torch.arange(len(s.labels)) == 0 for s in batch])
    return (losses[whole].mean() + losses.mean()) / 2


@torch.inference_mode()
def accuracy(model: SpikeGptClassifier, rows: list[Sentence]) -> float:
    """Share of sentences whose best class is their label."""
    model.eval()
    right = 0
    for start in range(0, len(rows), 32):
        batch = rows[start : start + 32]
        right += int((span_scores(model, batch).argmax(-1) == torch.cat([s.labels for s in batch])).sum())
    model.train()
    return right / len(rows)


def batches(rows: list[Sentence], size: int, epoch: int, seed: int) -> list[list[Sentence]]:
    """An epoch in random order, sentences of like length together."""
    random = np.random.default_rng([seed, epoch])
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids) * random.uniform(0.8, 1.25))
    cut = [[rows[i] for i in order[at : at + size]] for at in range(0, len(order), size)]
    random.shuffle(cut)
    return cut


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 6 % of the steps, then a cosine down to 2 % of the peak."""
    warm = max(1, steps // 16)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


@dataclass
class Run:
    """A fine-tuning run that can stop and go on."""

    model: SpikeGptClassifier
    optimizer: torch.optim.AdamW
    step: int = 0

    def save(self, path: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def resume(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]


def losses(run: Run, rows: list[Sentence], size: int, epochs: int, rate: float, seed: int) -> Iterator[float]:
    """Train from the run's step to the end; yields the loss of each step."""
    per_epoch = -(-len(rows) // size)
    for epoch in range(run.step // per_epoch, epochs):
        for batch in batches(rows, size, epoch, seed)[run.step % per_epoch :]:
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run.step, per_epoch * epochs, rate * group["scale"])
            loss = loss_of(run.model, batch)
            run.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
            run.optimizer.step()
            run.step += 1
            yield float(loss.detach())


def optimizer_for(model: SpikeGptClassifier) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices; the new head learns ten times as fast."""
    named = [(n, p) for n, p in model.named_parameters() if n != "classifier.weight"]
    matrices = [p for n, p in named if p.ndim == 2 and n != "emb.weight"]
    others = [p for n, p in named if p.ndim != 2 or n == "emb.weight"]
    groups = [{"params": matrices, "weight_decay": 0.01, "scale": 1.0},
              {"params": others, "weight_decay": 0.0, "scale": 1.0},
              {"params": [model.classifier.weight], "weight_decay": 0.01, "scale": 10.0}]  # fmt: skip
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-8, fused=True)


def save_classifier(model: SpikeGptClassifier, tokenizer: Tokenizer, folder: Path) -> None:
    """A model directory like that of train_spikegpt.py, whose config names the classes and the pooling."""
    save_model(model, tokenizer, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"labels": list(model.classes.labels), "pooling": model.classes.pooling}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@click.command()
@click.option("--train", "train_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--dev", "dev_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Model directory to write at the end.")
@click.option("--labels", default="negative,positive", help="Names of the classes 0, 1, ...")
@click.option("--model", type=click.Path(exists=True, path_type=Path), default=Path("samples/spikegpt-6m"))
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="Resumed from if it exists.")
@click.option("--phrases/--no-phrases", default=True, help="Read phrases within their sentences (SST-2).")
@click.option("--batch", default=16)
@click.option("--epochs", default=4)
@click.option("--rate", default=4e-4)
@click.option("--dropout", default=0.1, help="Of the residual and of the pooled features, in training only.")
@click.option("--seed", default=0)
@click.option("--threads", default=1)
def main(
    train_path: Path, dev_path: Path, out: Path, labels: str, model: Path, checkpoint: Path, phrases: bool,
    batch: int, epochs: int, rate: float, dropout: float, seed: int, threads: int,
) -> None:  # fmt: skip
    """Fine-tune, and say the accuracy on the dev file after every epoch."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    names = tuple(labels.split(","))
    classifier, tokenizer = starting_point(model, names, dropout, seed)
    run = Run(classifier, optimizer_for(classifier))
    if checkpoint.exists():
        run.resume(checkpoint)
    rows = sentences(tokenizer, read_labelled(train_path, names), phrases)
    dev = sentences(tokenizer, read_labelled(dev_path, names), phrases=False)
    steps = -(-len(rows) // batch) * epochs
    tokens = sum(len(s.ids) for s in rows)
    click.echo(
        f"{len(rows)} texts, {sum(len(s.labels) for s in rows)} labels, {tokens} tokens; step {run.step}/{steps}"
    )
    first, began, recent = run.step, time.time(), []
    for loss in losses(run, rows, batch, epochs, rate, seed):
        recent.append(loss)
        if run.step % 50 == 0:
            report_pace(run.step, steps, (time.time() - began) / (run.step - first), recent)
        if run.step % 100 == 0 or run.step == steps:
            run.save(checkpoint)
        if run.step % (steps // epochs // 2) == 0:
            click.echo(json.dumps({"step": run.step, "dev_accuracy": round(accuracy(classifier, dev), 4)}))
    save_classifier(classifier, tokenizer, out)
    click.echo(json.dumps({"step": run.step, "dev_accuracy": round(accuracy(classifier, dev), 4)}))


if __name__ == "__main__":
    main()
