"""slmc validate: an artifact's files, both ways to run it, quality, speed and memory, here or on another machine."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from targets.device.evaluation import WORST_LOSS, Evaluation
from targets.device.measurement import Measurement, MeasureRequest, chunk_for, fitting_lengths
from targets.device.verify import open_artifact
from targets.remote.transport import EMULATED
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, Site, execution_options, site
from toolchain.cli.options import PATH, THREADS, command, signature_option, text_field_option
from toolchain.cli.verdicts import found_by, promised_text, say_verdict, verdict_document
from toolchain.delivery.promises import Found, summary, verdict
from toolchain.delivery.validate import artifact_session, evaluation_request, session_logits
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import LanguageModel, ModelOptions
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading, Text, read_judged, read_text
from toolchain.model.text_rules import artifact_tokenizer
from toolchain.quality.accuracy import ClassReference, reference_for
from toolchain.quality.reference import bits_per_byte, standard_error, stream_logits

TEXT_TOKENS, STOCK_TOKENS, SINGLE_TOKENS = 8192, 2048, 256
"""Tokens that are read for quality, on plain ONNX Runtime, and one by one, unless --tokens says less."""

EMULATED_TOKENS = 256
"""Tokens that an emulator, which is slow, reads unless --tokens says otherwise."""


@click.command("validate")
@click.argument("artifact", type=PATH)
@click.option("--reference", type=PATH, help="The model that it was made from: compare with it.")
@click.option("--tokenizer", type=PATH, help="tokenizer.json of the reference, if that is a bare checkpoint.")
@click.option("--data", type=PATH, help="Text to read.")
@text_field_option
@click.option("--tokens", type=click.IntRange(min=2), help="Read so many tokens of it at most.")
@click.option("--threads", type=THREADS, default=1)
@click.option("--no-native", is_flag=True, help="Plain ONNX Runtime, without compiled operators.")
@execution_options
@signature_option
@command
def validate_command(
    console: Console, artifact: Path, reference: Path | None, tokenizer: Path | None, data: Path | None,
    text_field: str | None, tokens: int | None, threads: int, no_native: bool, **place: Any,
) -> int:  # fmt: skip
    """Check an ARTIFACT, here or --on another machine: files, both ways to run it, quality, speed and memory.

    What its manifest promises is compared with what is measured; exit code 3 if a promise is broken.
    """
    manifest = open_artifact(artifact)
    vocabulary = artifact_session(artifact, manifest.io, native=not no_native).vocabulary
    text = artifact_text(artifact, manifest, data, vocabulary, text_field)
    if tokens or place["on"] == EMULATED:
        text = text.head(tokens or EMULATED_TOKENS)
    else:
        text = promised_text(text, manifest, TEXT_TOKENS)
    model = reference_model(reference, tokenizer, artifact, manifest) if reference else None
    with site(ExecutionOptions(**place), console, artifact, manifest, native=not no_native, speed=False) as where:
        document: dict[str, Any] = {} if where.name is None else {"on": where.name}
        said, found = _predictions(where, text, threads, native=not no_native, model=model)
        document |= {"files": "ok"} | said
        if where.speed_counts:
            read, chunk = tuple(int(t) for t in text.ids[:1024]), chunk_for(vocabulary)
            lengths = fitting_lengths(MeasureRequest.prompt_tokens, MeasureRequest.generate_tokens, manifest.io.context)
            request = MeasureRequest(
                *lengths, tokens=read, threads=threads, native=not no_native, chunk_tokens=chunk, bandwidth=False
            )
            measured = where.measure(request)
            document |= _speed(measured)
            found = dataclasses.replace(found, memory=measured)
        else:
            document["speed"] = "not reported: emulated"
        if where.limit is not None:
            document |= {
                "limit_memory_bytes": where.limit.limit_bytes,
                "limit_memory_peak_bytes": where.limit.peak_bytes,
                "limit_method": where.limit.method,
            }
    if model is not None and where.name is None:
        own = place["artifact_native"]
        session = artifact_session(artifact, manifest.io, native=not no_native, own=own, threads=threads)
        logits = session_logits(session, text.reading)
        document["kl_mean"] = reference_for(model.forward, text.reading).score(logits).kl_mean
    rows = [(k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in document.items()]
    console.table(str(artifact), (f"measured {'here' if where.name is None else 'there'}", "value"), rows)
    promises = verdict(manifest, found)
    code = say_verdict(console, promises)
    console.result(document | verdict_document(promises), summary(promises))
    return code


def artifact_text(artifact: Path, manifest: Manifest, data: Path | None, vocabulary: int, field: str | None) -> Text:
    """A text, the shipped one if none is given, as an artifact's tokenizer splits it and its context cuts it; for a
    classifier labelled sentences."""
    tokenizer = artifact_tokenizer(artifact, manifest, vocabulary)
    if manifest.io.classes:
        return read_judged(data, tokenizer, manifest.io.classes.labels, manifest.io.context, "--data", field)
    return read_text(data or SHIPPED_TEXTS / "evaluation.txt", tokenizer, manifest.io.context, field)


def reference_model(path: Path, tokenizer: Path | None, artifact: Path, manifest: Manifest) -> LoadedModel:
    """The model that an artifact was made from.

    Raises:
        SlmcError: it is another one, or none.
    """
    model = load_model(path, tokenizer, ModelOptions(manifest.io.context, family=manifest.source.family))
    if model.sha256 != manifest.source.sha256:
        raise SlmcError(f"{path}: not the model that {artifact} was made from (SHA-256 differs)")
    return model


def _predictions(
    where: Site, text: Text, threads: int, *, native: bool, model: LoadedModel | None
) -> tuple[dict[str, Any], Found]:
    """Quality of the artifact as it runs there, and whether its ways to run agree."""
    read = where.evaluate(evaluation_request(text, SINGLE_TOKENS, native=native, threads=threads))
    short = evaluation_request(text.head(STOCK_TOKENS), 0, native=False, threads=threads)
    count = len(short.labels or short.tokens)
    stock = where.evaluate(short) if read.native_library else None
    document: dict[str, Any] = {"dataset": text.name, "tokens": len(read.losses), "perplexity": read.perplexity}
    if read.accuracy is None:
        document["bits_per_byte"] = bits_per_byte(read.perplexity, len(read.losses), text.n_bytes)
    else:
        entropy = math.log(read.perplexity)
        document = {
            "dataset": text.name, "sentences": len(read.losses), "accuracy": read.accuracy, "cross_entropy": entropy,
        }  # fmt: skip
    document |= {
        "token_by_token_top1": read.token_by_token_top1,
        "stock_runtime_top1": stock.agreement(read.best) if stock else None,
        "stock_runtime_perplexity_ratio": stock.perplexity / read.head(count).perplexity if stock else None,
    }
    if model is None:
        return document, found_by(text, read, stock)
    reference = predictions(model.forward, text.reading)
    return document | _beside(reference, read, text), found_by(text, read, stock, reference)


def _beside(reference: tuple[Tensor, Tensor], read: Evaluation, text: Text) -> dict[str, Any]:
    """The artifact's losses and best tokens beside the fp32 model's."""
    losses, best = reference
    labels = text.sentences.labels if text.sentences else None
    if read.accuracy is not None and labels is not None:
        accuracy = float(torch.eq(best, labels).double().mean())
        return {
            "reference_accuracy": accuracy,
            "relative_drop": (accuracy - read.accuracy) / max(accuracy, 1 / len(best)),
            "top1_agreement": read.agreement(tuple(best.tolist())),
        }
    difference = torch.tensor(read.losses, dtype=torch.float64) - losses
    perplexity = math.exp(min(float(losses.mean()), WORST_LOSS))
    return {
        "reference_perplexity": perplexity,
        "relative_drop": read.perplexity / perplexity - 1,
        "standard_error": standard_error(difference),
        "reference_bits_per_byte": bits_per_byte(perplexity, len(losses), text.n_bytes),
        "top1_agreement": read.agreement(tuple(best.tolist())),
    }


def predictions(model: LanguageModel, ids: Reading) -> tuple[Tensor, Tensor]:
    """Losses float64 in nats and best tokens int64 [n] of a torch model over token ids [n], as of an Evaluation."""
    if isinstance(ids, Sentences):
        return _class_predictions(model, ids)
    losses, best = [], []
    for start, logits in stream_logits(model, ids):
        end = start + len(logits)
        following = ids[start + 1 : end if model.context and end % model.context == 0 else end + 1]
        log_probs = torch.log_softmax(logits[: len(following)].double(), -1)
        losses.append(-log_probs.gather(1, following[:, None])[:, 0])
        best.append(logits.argmax(-1))
    return torch.cat(losses), torch.cat(best)


def _class_predictions(model: LanguageModel, sentences: Sentences) -> tuple[Tensor, Tensor]:
    """Losses of the labels and best classes, sentence by sentence in the file's order."""
    reference = ClassReference(model, sentences)
    place = torch.argsort(torch.cat(sentences.batches()))
    return reference.losses.double()[place], reference.log_probs.argmax(-1)[place]


def _speed(m: Measurement) -> dict[str, Any]:
    return {
        "load_ms": m.load_ms,
        "prompt_tps": m.prompt_tps,
        "decode_tps": m.decode_tps,
        **{f"decode_{k}_ms": v for k, v in dataclasses.asdict(m.decode_ms).items()},
        "rss_peak_bytes": m.ended.peak_bytes,
        "rss_after_load_bytes": m.loaded.rss_bytes,
        "rss_baseline_bytes": m.baseline.rss_bytes,
        "private_bytes": m.ended.private_bytes,
        "file_backed_bytes": m.ended.file_backed_bytes,
        "native": m.native_library is not None,
        "isa": m.isa,
        "ort_version": m.ort_version,
    }
