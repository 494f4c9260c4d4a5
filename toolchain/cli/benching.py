"""slmc bench: speed and memory of artifacts, with llama-bench's flags, columns and formats; several in turn."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import importlib.metadata
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from exporters.graph_nodes import read_workload
from targets.device import units
from targets.device.clock import low_decile
from targets.device.measurement import Measurement, MeasureRequest, chunk_for
from targets.device.verify import open_artifact
from targets.measure.paired import Comparison, compare_paired
from targets.measure.rounds import measure_in_turn, merged
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, Site, execution_options, site
from toolchain.cli.options import PATH, command, signature_option
from toolchain.cli.verdicts import exit_code
from toolchain.delivery.promises import BROKEN, Found, verdict
from toolchain.delivery.validate import artifact_session
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.text import read_text
from toolchain.model.text_rules import artifact_tokenizer

KINDS = ("md", "csv", "json", "jsonl", "sql")
TABLE = "llama_bench"
"""The table's name in -o sql: that of llama-bench, whose own scripts look for it."""


@dataclass(frozen=True)
class _Subject:
    """One artifact, where it runs, and the text that it reads."""

    folder: Path
    manifest: Manifest
    site: Site
    tokens: tuple[int, ...]
    vocabulary: int
    token_bytes: int


@click.command("bench")
@click.argument("artifacts", type=PATH, nargs=-1)
@click.option("-m", "--model", "models", type=PATH, multiple=True, help="An artifact; repeatable, as ARTIFACTS are.")
@click.option("-p", "--n-prompt", default="512", help="Prompt tokens; several with commas.")
@click.option("-n", "--n-gen", default="128", help="Generated tokens; several with commas.")
@click.option("-pg", "prompt_and_gen", multiple=True, help="Prompt and generation in one test: 512,128. Repeatable.")
@click.option("-t", "--threads", default="1", help="Threads; several with commas.")
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=5)
@click.option("-o", "--output", "kind", type=click.Choice(KINDS), default="md")
@click.option("--no-native", is_flag=True, help="Plain ONNX Runtime, without compiled operators.")
@execution_options
@signature_option
@command
def bench_command(
    console: Console, artifacts: tuple[Path, ...], models: tuple[Path, ...], n_prompt: str, n_gen: str,
    prompt_and_gen: tuple[str, ...], threads: str, repetitions: int, kind: str, no_native: bool, **place: Any,
) -> int:  # fmt: skip
    """Speed and memory of ARTIFACTS, here or --on another machine, with llama-bench's flags and columns.

    Several are measured in turn, a process each time, and compared with the first. Exit code 3 if an artifact has
    another size, or needs more memory, than its manifest promises.
    """
    folders = (*artifacts, *models)
    if not folders:
        raise SlmcError("no artifact is given; name one or more, as 'slmc bench OUT' or 'slmc bench -m OUT -m OTHER'")
    counts, tests = _numbers(threads, "-t", 1, 256), _tests(n_prompt, n_gen, prompt_and_gen)
    rows, code = [], 0
    with contextlib.ExitStack() as stack:
        subjects = [
            _subject(folder, console, stack, ExecutionOptions(**place), no_native=no_native) for folder in folders
        ]
        for count in counts:
            for prompt, generated in tests:
                taken = _measured(subjects, prompt, generated, repetitions, count, native=not no_native)
                rows += _rows(console, subjects, taken)
                code = max(code, _judged(console, subjects, taken))
    click.echo(_rendered(rows, "json" if console.as_json else kind))
    return code


def _tests(n_prompt: str, n_gen: str, pairs: Sequence[str]) -> list[tuple[int, int]]:
    tests = [(p, 0) for p in _numbers(n_prompt, "-p") if p] + [(0, n) for n in _numbers(n_gen, "-n") if n]
    for pair in pairs:
        both = _numbers(pair, "-pg", 1)
        if len(both) != 2:
            raise SlmcError(f"-pg {pair!r}: expected two numbers, of prompt and generated tokens, as 512,128")
        tests.append((both[0], both[1]))
    if not tests:
        raise SlmcError("-p 0 and -n 0 leave nothing to measure; give a number of tokens to one of them")
    return tests


def _numbers(text: str, option: str, least: int = 0, most: int = 10**6) -> list[int]:
    """The whole numbers of '128,512'."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and least <= int(part[:9]) <= most for part in parts):
        raise SlmcError(
            f"{option} {text!r}: expected whole numbers from {least} to {most} with commas between, as 1 or 1,2"
        )
    return [int(part) for part in parts]


def _subject(
    folder: Path, console: Console, stack: contextlib.ExitStack, place: ExecutionOptions, *, no_native: bool
) -> _Subject:
    manifest = open_artifact(folder)
    vocabulary = artifact_session(folder, manifest.io, native=not no_native).vocabulary
    tokenizer = artifact_tokenizer(folder, manifest, vocabulary)
    text = read_text(SHIPPED_TEXTS / "evaluation.txt", tokenizer, manifest.io.context)
    where = stack.enter_context(site(place, console, folder, manifest, native=not no_native, speed=True))
    tokens = tuple(int(t) for t in text.ids[:4096])
    return _Subject(folder, manifest, where, tokens, vocabulary, read_workload(folder / "model.onnx").weight_bytes)


def _measured(
    subjects: Sequence[_Subject], prompt: int, generated: int, repetitions: int, threads: int, *, native: bool
) -> tuple[tuple[Measurement, ...], ...]:
    """One test of all artifacts, in turn."""
    request = MeasureRequest(prompt, generated, repetitions, threads, native)

    def measure_of(subject: _Subject) -> Any:
        own = {
            "tokens": subject.tokens, "chunk_tokens": chunk_for(subject.vocabulary),
            "bandwidth": subject.site.name is None,
        }  # fmt: skip
        return lambda asked: subject.site.measure(
            dataclasses.replace(asked, **(own | {"bandwidth": own["bandwidth"] and asked.bandwidth}))
        )

    return measure_in_turn([measure_of(subject) for subject in subjects], request)


def _judged(console: Console, subjects: Sequence[_Subject], taken: Sequence[Sequence[Measurement]]) -> int:
    """The exit code that the artifacts' promises ask for; names the broken ones."""
    code = 0
    for subject, rounds in zip(subjects, taken, strict=True):
        promises = verdict(subject.manifest, Found(memory=merged(rounds)))
        for promise in (p for p in promises if p.status == BROKEN):
            console.note(
                f"{subject.folder.name}: broken promise: {promise.name} is {promise.found}, promised "
                f"{promise.promised} within {promise.tolerance}"
            )
        code = max(code, exit_code(promises))
    return code


def _rows(
    console: Console, subjects: Sequence[_Subject], taken: Sequence[Sequence[Measurement]]
) -> list[dict[str, Any]]:
    rows = []
    for subject, rounds in zip(subjects, taken, strict=True):
        whole = merged(rounds)
        row = _row(subject, whole)
        if len(subjects) > 1 and len(rounds) > 1:
            row |= _compared(compare_paired([_quiet_ms(m) for m in rounds], [_quiet_ms(m) for m in taken[0]]))
        rows.append(row)
        for doubt in whole.doubts:
            console.note(f"{subject.folder.name}, {_test_name(row)}: {doubt}")
    return rows


def _compared(found: Comparison) -> dict[str, float]:
    """CPU time beside the first artifact's, 1 for itself, with its 95 % interval."""
    return {"cpu_vs_first": found.ratio, "cpu_vs_first_low": found.low, "cpu_vs_first_high": found.high}


def _quiet_ms(m: Measurement) -> float:
    """CPU time of one repetition as on a machine that nothing disturbs: each token by the lowest decile of all."""
    token = low_decile(m.decode_cpu_ms) if m.decode_cpu_ms else 0.0
    return token * m.generate_tokens + (low_decile(m.prompt_cpu_ms) if m.prompt_cpu_ms else 0.0)


def _cpu_ms(m: Measurement) -> float:
    return sum(m.prompt_cpu_ms) + sum(m.decode_cpu_ms)


def _row(subject: _Subject, m: Measurement) -> dict[str, Any]:
    """llama-bench's fields in its order, then memory, percentiles, bandwidth, energy and the machine's condition."""
    manifest, samples_ms = subject.manifest, _per_repetition(m)
    speeds = [(m.prompt_tokens + m.generate_tokens) * 1e3 / ms for ms in samples_ms]
    row: dict[str, Any] = {
        "build_commit": f"slmc {importlib.metadata.version('slmc')}", "cpu_info": m.cpu, "backend": "ORT CPU",
        "model_filename": subject.folder.name, "model_type": manifest.source.family,
        "model_size": manifest.bytes.weights, "model_n_params": manifest.source.params, "n_threads": m.threads,
        "n_prompt": m.prompt_tokens, "n_gen": m.generate_tokens,
        "test_time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "avg_ns": round(statistics.mean(samples_ms) * 1e6), "stddev_ns": round(_deviation(samples_ms) * 1e6),
        "avg_ts": statistics.mean(speeds), "stddev_ts": _deviation(speeds),
        "samples_ns": [round(ms * 1e6) for ms in samples_ms], "samples_ts": speeds,
        "bits_per_weight": 8 * manifest.bytes.weights / manifest.source.params,
        "file_mib": manifest.bytes.file / 2**20, "load_ms": m.load_ms, "first_token_ms": m.first_token_ms,
        "rss_peak_mib": m.ended.peak_bytes / 2**20, "rss_after_load_mib": m.loaded.rss_bytes / 2**20,
        "rss_after_first_token_mib": m.after_first_token.rss_bytes / 2**20 if m.after_first_token else None,
        "rss_baseline_mib": m.baseline.rss_bytes / 2**20, "private_mib": m.ended.private_bytes / 2**20,
        "file_backed_mib": m.ended.file_backed_bytes / 2**20, "cpu_time_ms": _cpu_ms(m) / m.repetitions,
        "read_bw_gbs": m.read_bandwidth_gbs, "native": m.native_library is not None, "isa": m.isa,
        "ort_version": m.ort_version, "reference_wait": m.reference_wait, "temperature_c": m.temperature_after_c,
        "governor": m.after.governor if m.after else None, "doubts": list(m.doubts),
    }  # fmt: skip
    if m.generate_tokens:
        row |= {f"{k}_ms": v for k, v in dataclasses.asdict(m.decode_ms).items()}
        row |= {"cpu_p50_ms": m.decode_cpu_ms_percentiles.p50, "uj_per_token": m.uj_per_token}
        if m.read_bandwidth_gbs:
            row["bw_fraction"] = subject.token_bytes * m.decode_tps / (m.read_bandwidth_gbs * 1e9)
    return row


def _per_repetition(m: Measurement) -> list[float]:
    """Wall time of each repetition: its prompt and its generated tokens."""
    size = m.generate_tokens
    generated = [sum(m.decode_wall_ms[i : i + size]) for i in range(0, len(m.decode_wall_ms), size)] if size else []
    if not generated or not m.prompt_wall_ms:
        return generated or list(m.prompt_wall_ms)
    return [a + b for a, b in zip(m.prompt_wall_ms, generated, strict=True)]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _test_name(row: dict[str, Any]) -> str:
    """As llama-bench writes it: pp512, tg128, pp512+tg128."""
    return "+".join(f"{name}{row[key]}" for name, key in (("pp", "n_prompt"), ("tg", "n_gen")) if row[key])


def _rendered(rows: list[dict[str, Any]], kind: str) -> str:
    if kind == "json":
        return json.dumps(rows, indent=2)
    if kind == "jsonl":
        return "\n".join(json.dumps(row) for row in rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if kind == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().rstrip()
    return _sql(rows, columns) if kind == "sql" else _markdown(rows)


def _sql(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """A table and its rows for `sqlite3`."""

    def literal(value: Any) -> str:
        if value is None or isinstance(value, (bool, int, float)):
            return "NULL" if value is None else str(int(value) if isinstance(value, bool) else value)
        text = json.dumps(value) if isinstance(value, list) else str(value)
        return "'" + text.replace("'", "''") + "'"

    lines = [f"CREATE TABLE IF NOT EXISTS {TABLE} ({', '.join(columns)});"]
    for row in rows:
        lines.append(f"INSERT INTO {TABLE} VALUES ({', '.join(literal(row.get(column)) for column in columns)});")
    return "\n".join(lines)


def _markdown(rows: list[dict[str, Any]]) -> str:
    compared = any("cpu_vs_first" in row for row in rows)
    titles = ["model", "size", "params", "backend", "threads", "test", "t/s", "p50 ms", "p99 ms", "RSS MiB", "of reads"]
    titles += ["CPU time / first"] if compared else []
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        percentiles = [f"{row[k]:.3f}" if k in row else "" for k in ("p50_ms", "p99_ms")]
        cells = [
            row["model_filename"], units.bytes_text(row["model_size"]), units.count_text(row["model_n_params"]),
            row["backend"] + (" native" if row["native"] else ""), str(row["n_threads"]), _test_name(row),
            f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}", *percentiles, f"{row['rss_peak_mib']:.1f}",
            f"{row['bw_fraction']:.0%}" if "bw_fraction" in row else "",
        ]  # fmt: skip
        if compared:
            low, high = row.get("cpu_vs_first_low"), row.get("cpu_vs_first_high")
            cells.append(f"{row['cpu_vs_first']:.2f} ({low:.2f} to {high:.2f})" if low and high else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
