"""The commands that run an artifact: validate, eval, bench, generate."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from exporters.errors import SlmcError
from exporters.manifest import MANIFEST_NAME, Manifest
from targets.measure import measure
from targets.measurement import Measurement, MeasureRequest, chunk_for
from toolchain.cli.console import Console
from toolchain.cli.options import PATH, command
from toolchain.delivery.package import open_artifact
from toolchain.delivery.reports import units
from toolchain.delivery.validate import artifact_session, measurement, session_logits, token_by_token_agreement
from toolchain.evidence.quality import Reference, Score, bits_per_byte, stream_logits
from toolchain.generate import generate
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions
from toolchain.model.text import UNUSED_ROWS, Text, read_text, read_tokenizer
from toolchain.prepare import SHIPPED_TEXTS

SINGLE_TOKENS = 256
"""Tokens that are read one by one to compare with one call."""

THREADS = click.IntRange(1, 256)


def _text_for(artifact: Path, manifest: Manifest, data: Path | None, vocabulary: int) -> Text:
    tokenizer = read_tokenizer(artifact / "tokenizer.json", vocabulary, UNUSED_ROWS)
    return read_text(data or SHIPPED_TEXTS / "evaluation.txt", tokenizer, manifest.io.context)


@click.command("validate")
@click.argument("artifact", type=PATH)
@click.option("--reference", type=PATH, help="The model that it was made from: compare with it.")
@click.option("--tokenizer", type=PATH, help="tokenizer.json of the reference, if that is a bare checkpoint.")
@click.option("--data", type=PATH, help="Text to read.")
@click.option("--threads", type=THREADS, default=1)
@command
def validate_command(
    console: Console, artifact: Path, reference: Path | None, tokenizer: Path | None, data: Path | None, threads: int
) -> int:
    """Check an ARTIFACT on this machine: files, both ways to run it, quality, speed and memory."""
    manifest = open_artifact(artifact)
    native = artifact_session(artifact, manifest.io, threads=threads)
    text = _text_for(artifact, manifest, data, native.vocabulary).head(8192)
    short = text.head(min(SINGLE_TOKENS, manifest.io.context or SINGLE_TOKENS))
    stock = artifact_session(artifact, manifest.io, native=False, threads=threads)
    both = Reference(_AsModel(native), text.head(2048).ids).score(session_logits(stock, text.head(2048).ids))
    document: dict[str, Any] = {
        "files": "ok",
        "token_by_token_top1": token_by_token_agreement(native, short.ids),
        "stock_runtime_top1": both.top1_agreement,
        "stock_runtime_perplexity_ratio": 1 + both.relative_drop,
    }
    if reference is not None:
        model = load_model(reference, tokenizer, ModelOptions(context=manifest.io.context))
        if model.sha256 != manifest.source.sha256:
            raise SlmcError(f"{reference}: not the model that {artifact} was made from (SHA-256 differs)")
        document |= _score_rows(Reference(model.forward, text.ids).score(session_logits(native, text.ids)), text)
    document |= _speed(measurement(artifact, manifest.io, text, native.vocabulary, threads=threads))
    rows = [(k, f"{v:.6g}" if isinstance(v, float) else str(v)) for k, v in document.items()]
    console.table(str(artifact), ("measured here", "value"), rows)
    console.result(document, "valid")
    return 0


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
        return _AsModel(session), _text_for(path, manifest, data, session.vocabulary)
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


@click.command("bench")
@click.argument("artifact", type=PATH)
@click.option("-p", "--n-prompt", default="512", help="Prompt tokens; several with commas.")
@click.option("-n", "--n-gen", default="128", help="Generated tokens; several with commas.")
@click.option("-t", "--threads", default="1", help="Threads; several with commas.")
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=5)
@click.option("-o", "--output", "kind", type=click.Choice(["md", "csv", "json", "jsonl"]), default="md")
@click.option("--no-native", is_flag=True, help="Plain ONNX Runtime, without compiled operators.")
@command
def bench_command(
    console: Console, artifact: Path, n_prompt: str, n_gen: str, threads: str, repetitions: int, kind: str,
    no_native: bool,
) -> int:  # fmt: skip
    """Speed and memory of an ARTIFACT, with llama-bench's flags and columns."""
    counts = _numbers(threads, "-t", 1, 256)
    tests = [(p, 0) for p in _numbers(n_prompt, "-p") if p] + [(0, n) for n in _numbers(n_gen, "-n") if n]
    if not tests:
        raise SlmcError("-p 0 and -n 0 leave nothing to measure; give a number of tokens to one of them")
    manifest = open_artifact(artifact)
    vocabulary = artifact_session(artifact, manifest.io).vocabulary
    text = _text_for(artifact, manifest, None, vocabulary)
    tokens = tuple(int(t) for t in text.ids[:4096])
    rows = []
    for count in counts:
        for prompt, generated in tests:
            request = MeasureRequest(
                prompt, generated, repetitions, count, not no_native, tokens, chunk_tokens=chunk_for(vocabulary)
            )
            rows.append(_bench_row(artifact, manifest, measure(artifact, manifest.io, request)))
    click.echo(_rendered(rows, "json" if console.as_json else kind))
    return 0


def _numbers(text: str, option: str, least: int = 0, most: int = 10**6) -> list[int]:
    """The whole numbers of '128,512'."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part[:9]) <= most for part in parts):
        raise SlmcError(
            f"{option} {text!r}: expected whole numbers from {least} to {most} with commas between, as 1 or 1,2"
        )
    return [int(part) for part in parts]


def _bench_row(artifact: Path, manifest: Manifest, m: Measurement) -> dict[str, Any]:
    """llama-bench's fields, then memory, percentiles and bandwidth."""
    prompt = m.prompt_tokens > 0
    samples_ms = m.prompt_wall_ms if prompt else _per_repetition(m)
    tokens = m.prompt_tokens if prompt else m.generate_tokens
    speeds = [tokens * 1e3 / ms for ms in samples_ms]
    row: dict[str, Any] = {
        "cpu_info": m.cpu, "model_filename": artifact.name, "model_type": manifest.source.family,
        "model_size": manifest.bytes.weights, "model_n_params": manifest.source.params, "backend": "ORT CPU",
        "n_threads": m.threads, "n_prompt": m.prompt_tokens, "n_gen": m.generate_tokens,
        "avg_ns": round(statistics.mean(samples_ms) * 1e6), "stddev_ns": round(_deviation(samples_ms) * 1e6),
        "avg_ts": statistics.mean(speeds), "stddev_ts": _deviation(speeds), "samples_ts": speeds,
        "load_ms": m.load_ms, "first_token_ms": m.first_token_ms, "rss_peak_mib": m.ended.peak_bytes / 2**20,
        "rss_baseline_mib": m.baseline.rss_bytes / 2**20, "native": m.native_library is not None, "isa": m.isa,
        "ort_version": m.ort_version, "reference_wait": m.reference_wait,
    }  # fmt: skip
    if not prompt:
        row |= {f"{k}_ms": v for k, v in dataclasses.asdict(m.decode_ms).items()}
        row["cpu_p50_ms"] = m.decode_cpu_ms_percentiles.p50
    return row


def _per_repetition(m: Measurement) -> list[float]:
    size = m.generate_tokens
    return [sum(m.decode_wall_ms[i : i + size]) for i in range(0, len(m.decode_wall_ms), size)]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _rendered(rows: list[dict[str, Any]], kind: str) -> str:
    if kind == "json":
        return json.dumps(rows, indent=2)
    if kind == "jsonl":
        return "\n".join(json.dumps(row) for row in rows)
    if kind == "csv":
        out = io.StringIO()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().rstrip()
    lines = [
        "| model | size | params | backend | threads | test | t/s | p50 ms | p99 ms | RSS MiB |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        test = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
        rate = f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}"
        tail = [f"{row[k]:.3f}" if k in row else "" for k in ("p50_ms", "p99_ms")]
        cells = [
            row["model_filename"], units.bytes_text(row["model_size"]), units.count_text(row["model_n_params"]),
            row["backend"] + (" native" if row["native"] else ""), str(row["n_threads"]), test, rate, *tail,
            f"{row['rss_peak_mib']:.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
