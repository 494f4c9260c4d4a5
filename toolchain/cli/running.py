"""The commands that read and write text with an artifact: eval, generate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from exporters.errors import SlmcError
from exporters.manifest import MANIFEST_NAME
from targets.verify import open_artifact
from toolchain.cli.console import Console
from toolchain.cli.options import PATH, THREADS, command
from toolchain.cli.validating import artifact_text
from toolchain.delivery.validate import artifact_session
from toolchain.evidence.quality import Reference, Score, bits_per_byte, stream_logits
from toolchain.generate import generate
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions
from toolchain.model.text import UNUSED_ROWS, Text, read_text, read_tokenizer


class _AsModel:
    """A session as the language model that `Reference` reads; its state lives in the session."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @property
    def context(self) -> int | None:
        context: int | None = self._session.io.context
        return context

    def state_specs(self) -> list[Any]:
        return []

    def initial_state(self, batch: int = 1) -> list[Any]:
        self._session.reset()
        return []

    def __call__(self, tokens: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        import torch

        return torch.from_numpy(self._session.run(tokens.numpy())), []


def _score_rows(score: Score, text: Text) -> dict[str, Any]:
    return {
        "dataset": text.name,
        "tokens": score.tokens,
        "perplexity": score.perplexity,
        "reference_perplexity": score.reference,
        "relative_drop": score.relative_drop,
        "standard_error": score.standard_error,
        "bits_per_byte": bits_per_byte(score.perplexity, score.tokens, text.n_bytes),
        "reference_bits_per_byte": bits_per_byte(score.reference, score.tokens, text.n_bytes),
        "kl_mean": score.kl_mean,
        "top1_agreement": score.top1_agreement,
    }


@click.command("eval")
@click.argument("subject", type=PATH)
@click.option("--data", type=PATH, required=True, help="Text to read.")
@click.option("--reference", type=PATH, help="Model or artifact to compare with: KL divergence, top-1, drop.")
@click.option("--tokenizer", type=PATH, help="tokenizer.json, for a bare checkpoint file.")
@click.option("--tokens", type=click.IntRange(min=2), help="Read only so many tokens.")
@click.option("--no-native", is_flag=True, help="An artifact on plain ONNX Runtime.")
@command
def eval_command(
    console: Console, subject: Path, data: Path, reference: Path | None, tokenizer: Path | None, tokens: int | None,
    no_native: bool,
) -> int:  # fmt: skip
    """Perplexity and bits per byte of a model or artifact SUBJECT on a text."""
    model, text = _reader(subject, data, tokenizer, native=not no_native)
    text = text.head(tokens) if tokens else text
    if reference is None:
        own = Reference(model, text.ids)
        document: dict[str, Any] = {
            "dataset": text.name, "tokens": len(text.ids) - 1, "perplexity": own.perplexity,
            "bits_per_byte": bits_per_byte(own.perplexity, len(text.ids) - 1, text.n_bytes),
        }  # fmt: skip
    else:
        other, same = _reader(reference, data, tokenizer, native=not no_native, context=model.context)
        if other.context != model.context:
            raise SlmcError(
                f"{reference}: its context is {other.context}, that of {subject} {model.context}; they read {data} in "
                "other pieces and cannot be compared"
            )
        if not same.head(len(text.ids)).ids.equal(text.ids):
            raise SlmcError(f"{reference}: its tokenizer splits {data} otherwise; the two cannot be compared")
        document = _score_rows(Reference(other, text.ids).score(stream_logits(model, text.ids)), text)
    rows = [(k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in document.items()]
    console.table(str(subject), ("measured", "value"), rows)
    if console.as_json:
        console.result(document, "")
    return 0


def _reader(
    path: Path, data: Path, tokenizer: Path | None, *, native: bool, context: int | None = None
) -> tuple[Any, Text]:
    """A model (with a context of that size) or artifact as a language model, and the text as it reads it."""
    if (path / MANIFEST_NAME).is_file():
        manifest = open_artifact(path)
        session = artifact_session(path, manifest.io, native=native)
        return _AsModel(session), artifact_text(path, manifest, data, session.vocabulary)
    loaded = load_model(path, tokenizer, ModelOptions(context))
    return loaded.forward, read_text(data, loaded.tokenizer, loaded.forward.context)


@click.command("generate")
@click.argument("artifact", type=PATH)
@click.option("-p", "--prompt", default="The ", help="Text to go on from.")
@click.option("-n", "--tokens", type=click.IntRange(min=0), default=128)
@click.option(
    "--temp",
    "--temperature",
    "temperature",
    type=click.FloatRange(min=0),
    default=0.7,
    help="0 always takes the best token.",
)
@click.option("--top-k", type=click.IntRange(min=1), default=40)
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--threads", type=THREADS, default=1)
@command
def generate_command(
    console: Console, artifact: Path, prompt: str, tokens: int, temperature: float, top_k: int, seed: int, threads: int
) -> int:
    """Write text with an ARTIFACT, token by token."""
    if math.isnan(temperature):
        raise SlmcError("--temperature nan: expected a number of 0 or more")
    if not _is_text(prompt):
        raise SlmcError(f"-p {prompt!r}: not UTF-8 text; give plain text")
    manifest = open_artifact(artifact)
    session = artifact_session(artifact, manifest.io, threads=threads)
    tokenizer = read_tokenizer(artifact / "tokenizer.json", session.vocabulary, UNUSED_ROWS)
    pieces = []
    for piece in generate(session, tokenizer, prompt, tokens, temperature=temperature, top_k=top_k, seed=seed):
        pieces.append(piece)
        if not console.as_json:
            click.echo(piece, nl=False)
    console.result({"prompt": prompt, "text": "".join(pieces)}, "")
    return 0


def _is_text(argument: str) -> bool:
    """Whether a command line argument was UTF-8; Python keeps other bytes as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True
