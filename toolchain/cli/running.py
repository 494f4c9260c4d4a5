"""slmc eval: how well a model or an artifact reads a text."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, Manifest, read_manifest
from exporters.artifact.runtimes import ONNXRUNTIME
from targets.device.verify import open_artifact
from toolchain.cli.console import Console
from toolchain.cli.execution import artifact_native, runtime_option, say_whose_operators
from toolchain.cli.opening import opened
from toolchain.cli.options import PATH, command, family_option, signature_option, text_field_option
from toolchain.cli.verdicts import judged, say_verdict, verdict_document
from toolchain.delivery.evaluation import artifact_text, found_in
from toolchain.delivery.figures import own_figures, score_figures
from toolchain.delivery.promises import Promise
from toolchain.delivery.validate import SessionModel, runtime_session
from toolchain.model.text import Text, read_judged, read_text
from toolchain.pipeline.job import check_metric
from toolchain.quality.accuracy import reference_for
from toolchain.quality.predictions import predictions
from toolchain.quality.reference import stream_logits


@click.command("eval")
@click.argument("subject", type=PATH)
@click.option("--data", type=PATH, required=True, help="Text to read.")
@text_field_option
@click.option("--reference", type=PATH, help="Model or artifact to compare with: KL divergence, top-1, drop.")
@click.option("--tokenizer", type=PATH, help="tokenizer.json, if the model is a bare checkpoint file.")
@family_option
@click.option("--tokens", type=click.IntRange(min=2), help="Read at most this many tokens.")
@click.option("--metric", help="perplexity, or accuracy for a classifier. Default: what the subject uses.")
@runtime_option
@artifact_native
@signature_option
@command
def eval_command(
    console: Console, subject: Path, data: Path, text_field: str | None, reference: Path | None,
    tokenizer: Path | None, family: str | None, tokens: int | None, metric: str | None, runtime: str,
    artifact_native: bool,
) -> int:  # fmt: skip
    """Perplexity and bits per byte of a model or artifact SUBJECT on a text, or accuracy on labelled sentences.

    Of an artifact, what its manifest promises of this is compared; exit code 3 if a promise is broken.
    """
    reader = partial(_reader, console, data, text_field, tokenizer, family, runtime=runtime, own=artifact_native)
    manifest = read_manifest(subject) if (subject / MANIFEST_NAME).is_file() else None
    model, text, _ = reader(subject)
    check_metric(metric, classifier=text.sentences is not None)
    text, other, source = text.head(tokens) if tokens else text, None, None
    if reference is None:
        document = own_figures(reference_for(model, text.reading), text)
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
        document = score_figures(reference_for(other, text.reading).score(stream_logits(model, text.reading)), text)
    rows = [(k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in document.items()]
    console.table(str(subject), ("measured", "value"), rows)
    code = 0
    if manifest is not None:
        promises = _promises(subject, manifest, model, text, other, source)
        code = say_verdict(console, promises)
        document |= {"runtime": runtime}
        document |= verdict_document(promises)
    if console.as_json:
        console.result(document, "")
    return code


def _promises(
    artifact: Path, manifest: Manifest, model: Any, text: Text, reference: Any, source: str | None
) -> tuple[Promise, ...]:
    """What the artifact's manifest promises beside what it reads here; source: SHA-256 of the reference's weights."""
    expected = predictions(reference, text.reading) if source == manifest.source.sha256 else None
    return judged(artifact, manifest, found_in(text, *predictions(model, text.reading), reference=expected))


def _reader(
    console: Console, data: Path, field: str | None, tokenizer: Path | None, family: str | None, path: Path, *,
    runtime: str, own: bool, context: int | None = None,
) -> tuple[Any, Text, str | None]:  # fmt: skip
    """A model (with a context of that size) or artifact as a language model, the text as it reads it, and the SHA-256
    of a model's weights."""
    if (path / MANIFEST_NAME).is_file():
        manifest = open_artifact(path)
        say_whose_operators(console, path, native=runtime == ONNXRUNTIME, trusted=own)
        session = runtime_session(path, manifest, runtime, own=own)
        return SessionModel(session), artifact_text(path, manifest, data, session.vocabulary, field), None
    loaded = opened(console, path, tokenizer, family, context)
    if loaded.classes:
        labels = loaded.classes.labels
        text = read_judged(data, loaded.tokenizer, labels, loaded.forward.context, "--data", field)
    else:
        text = read_text(data, loaded.tokenizer, loaded.forward.context, field)
    return loaded.forward, text, loaded.sha256
