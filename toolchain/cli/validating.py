"""slmc validate: an artifact's files, all ways to run it, quality, speed and memory, here or on another machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from exporters.artifact.runtimes import STOCK
from targets.device.measurement import MeasureRequest, fitting_lengths, prompt_chunk
from targets.device.verify import open_artifact
from targets.remote.transport import EMULATORS
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, execution_options, execution_target, runtime_option
from toolchain.cli.options import PATH, THREADS, command, signature_option, text_field_option
from toolchain.cli.verdicts import judged, say_verdict, verdict_document
from toolchain.delivery.evaluation import (
    TEXT_TOKENS,
    artifact_text,
    evaluate_artifact,
    found_by,
    promised_text,
    reference_model,
)
from toolchain.delivery.figures import comparison_figures, evaluation_figures, speed_figures
from toolchain.delivery.promises import summary
from toolchain.delivery.validate import artifact_session, runtime_session, session_logits
from toolchain.quality.accuracy import reference_for
from toolchain.quality.predictions import predictions

EMULATED_TOKENS = 256
"""Tokens that an emulator, which is slow, reads unless --tokens says otherwise."""


@click.command("validate")
@click.argument("artifact", type=PATH)
@click.option("--reference", type=PATH, help="Model that the artifact was built from, to compare with.")
@click.option("--tokenizer", type=PATH, help="tokenizer.json of the reference, if it is a bare checkpoint file.")
@click.option("--data", type=PATH, help="Text to read.")
@text_field_option
@click.option("--tokens", type=click.IntRange(min=2), help="Read at most this many tokens.")
@click.option("--threads", type=THREADS, default=1)
@runtime_option
@execution_options
@signature_option
@command
def validate_command(
    console: Console, artifact: Path, reference: Path | None, tokenizer: Path | None, data: Path | None,
    text_field: str | None, tokens: int | None, threads: int, runtime: str, **place: Any,
) -> int:  # fmt: skip
    """Check an ARTIFACT, here or --on another machine: files, all ways to run it, quality, speed and memory.

    What its manifest promises is compared with what is measured; exit code 3 if a promise is broken.
    """
    manifest = open_artifact(artifact)
    vocabulary = artifact_session(artifact, manifest.io, native=runtime != STOCK).vocabulary
    text = artifact_text(artifact, manifest, data, vocabulary, text_field)
    if tokens or place["on"] in EMULATORS:
        text = text.head(tokens or EMULATED_TOKENS)
    else:
        text = promised_text(text, manifest, TEXT_TOKENS)
    model = reference_model(reference, tokenizer, artifact, manifest) if reference else None
    with execution_target(
        ExecutionOptions(**place), console, artifact, manifest, runtime=runtime, speed=False
    ) as target:
        document: dict[str, Any] = ({} if target.name is None else {"on": target.name}) | {"runtime": runtime}
        readings = evaluate_artifact(target, text, threads=threads)
        document |= {"files": "ok"} | evaluation_figures(text, readings)
        expected = None if model is None else predictions(model.forward, text.reading)
        if expected is not None:
            document |= comparison_figures(expected, readings.own, text)
        found = found_by(text, readings, expected)
        if target.speed_counts:
            tokens_read, chunk = tuple(int(t) for t in text.ids[:1024]), prompt_chunk(manifest.io, vocabulary)
            lengths = fitting_lengths(MeasureRequest.prompt_tokens, MeasureRequest.generate_tokens, manifest.io.context)
            request = MeasureRequest(*lengths, tokens=tokens_read, threads=threads, chunk_tokens=chunk, bandwidth=False)
            measured = target.measure(request)
            document |= speed_figures(measured)
            found = dataclasses.replace(found, memory=measured)
        else:
            document["speed"] = "not reported: emulated"
        if target.limit is not None:
            document |= {
                "limit_memory_bytes": target.limit.limit_bytes,
                "limit_memory_peak_bytes": target.limit.peak_bytes,
                "limit_method": target.limit.method,
            }
    if model is not None and target.name is None:
        own = place["artifact_native"]
        session = runtime_session(artifact, manifest, runtime, own=own, threads=threads)
        logits = session_logits(session, text.reading)
        document["kl_mean"] = reference_for(model.forward, text.reading).score(logits).kl_mean
    rows = [(k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in document.items()]
    console.table(str(artifact), (f"measured {'here' if target.name is None else 'there'}", "value"), rows)
    promises = judged(artifact, manifest, found)
    code = say_verdict(console, promises)
    console.result(document | verdict_document(promises), summary(promises))
    return code
