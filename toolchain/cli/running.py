"""slmc eval: how well a model or an artifact reads a text."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, read_manifest
from targets.device.verify import open_artifact
from toolchain.cli.console import Console
from toolchain.cli.execution import artifact_native, say_whose_operators
from toolchain.cli.opening import opened
from toolchain.cli.options import PATH, command, family_option, signature_option, text_field_option
from toolchain.cli.validating import artifact_text, predictions
from toolchain.cli.verdicts import found_in, say_verdict, verdict_document
from toolchain.delivery.promises import Promise, verdict
from toolchain.delivery.validate import accuracy_drop, artifact_session
from toolchain.model.text import Text, read_judged, read_text
from toolchain.pipeline.job import check_metric
from toolchain.quality.accuracy import AnyReference, ClassReference, reference_for
from toolchain.quality.reference import Score, bits_per_byte, stream_logits


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

        if len(tokens) == 1:
            return torch.from_numpy(self._session.run(tokens.numpy())), []
        rows = [self(row[None], self.initial_state())[0] for row in tokens]  # sentences, each from an empty state
        return torch.cat(rows), []


def _score_rows(score: Score, text: Text) -> dict[str, Any]:
    if score.accuracy is not None:
        drop, upper = accuracy_drop(score)
        return {
            "dataset": text.name,
            "sentences": score.tokens,
            "accuracy": score.accuracy,
            "reference_accuracy": score.reference_accuracy,
            "relative_drop": drop,
            "relative_drop_upper": upper,
            "expected_drop": score.relative_drop,
            "standard_error": score.accuracy_error,
            "kl_mean": score.kl_mean,
            "top1_agreement": score.top1_agreement,
        }
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


def _own_rows(own: AnyReference, text: Text) -> dict[str, Any]:
    if isinstance(own, ClassReference):
        count, entropy = len(own.labels), math.log(own.perplexity)
        return {"dataset": text.name, "sentences": count, "accuracy": own.accuracy, "cross_entropy": entropy}
    count = len(text.ids) - 1
    bits = bits_per_byte(own.perplexity, count, text.n_bytes)
    return {"dataset": text.name, "tokens": count, "perplexity": own.perplexity, "bits_per_byte": bits}


@click.command("eval")
@click.argument("subject", type=PATH)
@click.option("--data", type=PATH, required=True, help="Text to read.")
@text_field_option
@click.option("--reference", type=PATH, help="Model or artifact to compare with: KL divergence, top-1, drop.")
@click.option("--tokenizer", type=PATH, help="tokenizer.json, for a bare checkpoint file.")
@family_option
@click.option("--tokens", type=click.IntRange(min=2), help="Read only so many tokens.")
@click.option("--metric", help="perplexity, or accuracy of a classifier; the subject's own if not given.")
@click.option("--no-native", is_flag=True, help="An artifact on plain ONNX Runtime.")
@artifact_native
@signature_option
@command
def eval_command(
    console: Console, subject: Path, data: Path, text_field: str | None, reference: Path | None,
    tokenizer: Path | None, family: str | None, tokens: int | None, metric: str | None, no_native: bool,
    artifact_native: bool,
) -> int:  # fmt: skip
    """Perplexity and bits per byte of a model or artifact SUBJECT on a text, or accuracy on labelled sentences.

    Of an artifact, what its manifest promises of this is compared; exit code 3 if a promise is broken.
    """
    reader = partial(_reader, console, data, text_field, tokenizer, family, native=not no_native, own=artifact_native)
    model, text, _ = reader(subject)
    check_metric(metric, classifier=text.sentences is not None)
    text, other, source = text.head(tokens) if tokens else text, None, None
    if reference is None:
        document = _own_rows(reference_for(model, text.reading), text)
    else:
        other, same, source = reader(reference, context=model.context)
        if other.context != model.context:
            raise SlmcError(
                f"{reference}: its context is {other.context}, that of {subject} {model.context}; they read {data} in "
                "other pieces and cannot be compared"
            )
        if (same.sentences is None) != (text.sentences is None):
            raise SlmcError(f"{reference}: of {subject} and it one is a classifier; the two cannot be compared")
        if not same.head(len(text.ids)).ids.equal(text.ids):
            raise SlmcError(f"{reference}: its tokenizer splits {data} otherwise; the two cannot be compared")
        document = _score_rows(reference_for(other, text.reading).score(stream_logits(model, text.reading)), text)
    rows = [(k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in document.items()]
    console.table(str(subject), ("measured", "value"), rows)
    code = 0
    if (subject / MANIFEST_NAME).is_file():
        promises = _promises(subject, model, text, other, source)
        code = say_verdict(console, promises)
        document |= verdict_document(promises)
    if console.as_json:
        console.result(document, "")
    return code


def _promises(artifact: Path, model: Any, text: Text, reference: Any, source: str | None) -> tuple[Promise, ...]:
    """What the artifact's manifest promises beside what it reads here; source: SHA-256 of the reference's weights."""
    manifest = read_manifest(artifact)
    expected = predictions(reference, text.reading) if source == manifest.source.sha256 else None
    return verdict(manifest, found_in(text, *predictions(model, text.reading), reference=expected))


def _reader(
    console: Console, data: Path, field: str | None, tokenizer: Path | None, family: str | None, path: Path, *,
    native: bool, own: bool, context: int | None = None,
) -> tuple[Any, Text, str | None]:  # fmt: skip
    """A model (with a context of that size) or artifact as a language model, the text as it reads it, and the SHA-256
    of a model's weights."""
    if (path / MANIFEST_NAME).is_file():
        manifest = open_artifact(path)
        say_whose_operators(console, path, native=native, trusted=own)
        session = artifact_session(path, manifest.io, native=native, own=own)
        return _AsModel(session), artifact_text(path, manifest, data, session.vocabulary, field), None
    loaded = opened(console, path, tokenizer, family, context)
    if loaded.classes:
        labels = loaded.classes.labels
        text = read_judged(data, loaded.tokenizer, labels, loaded.forward.context, "--data", field)
    else:
        text = read_text(data, loaded.tokenizer, loaded.forward.context, field)
    return loaded.forward, text, loaded.sha256
