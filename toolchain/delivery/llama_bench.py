"""llama-bench's fields and formats for measurements of artifacts."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import importlib.metadata
import io
import json
import statistics
from collections.abc import Sequence
from typing import Any

from exporters.artifact.manifest import Manifest
from exporters.artifact.runtimes import ONNXRUNTIME, SLMC_RUN
from targets.device import quantities
from targets.device.clock import low_decile
from targets.device.measurement import Measurement
from targets.measure.paired import Comparison

KINDS = ("md", "csv", "json", "jsonl", "sql")
_BACKENDS = {ONNXRUNTIME: "ORT CPU", SLMC_RUN: SLMC_RUN}
TABLE = "llama_bench"
"""The table's name in -o sql: that of llama-bench, whose own scripts look for it."""


def bench_row(name: str, manifest: Manifest, token_bytes: int, m: Measurement) -> dict[str, Any]:
    """llama-bench's fields in its order, then memory, percentiles, bandwidth, energy and the machine's condition."""
    samples_ms = _per_repetition(m)
    speeds = [(m.prompt_tokens + m.generate_tokens) * 1e3 / ms for ms in samples_ms]
    row: dict[str, Any] = {
        "build_commit": f"slmc {importlib.metadata.version('slmc')}", "cpu_info": m.cpu,
        "backend": _BACKENDS[m.runtime],
        "model_filename": name, "model_type": manifest.source.family,
        "model_size": manifest.bytes.weights, "model_n_params": manifest.source.params, "n_threads": m.threads,
        "n_prompt": m.prompt_tokens, "n_gen": m.generate_tokens, "n_depth": m.depth_tokens,
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
        "runtime": m.runtime, "ort_version": m.ort_version or None, "reference_wait": m.reference_wait,
        "temperature_c": m.temperature_after_c,
        "governor": m.after.governor if m.after else None, "doubts": list(m.doubts),
    }  # fmt: skip
    if m.generate_tokens:
        row |= {f"{k}_ms": v for k, v in dataclasses.asdict(m.decode_ms).items()}
        row |= {"cpu_p50_ms": m.decode_cpu_ms_percentiles.p50, "uj_per_token": m.uj_per_token}
        if m.read_bandwidth_gbs:
            row["bw_fraction"] = token_bytes * m.decode_tps / (m.read_bandwidth_gbs * 1e9)
    return row


def comparison_fields(found: Comparison) -> dict[str, float]:
    """CPU time relative to the first artifact's, with its 95 % interval."""
    return {"cpu_vs_first": found.ratio, "cpu_vs_first_low": found.low, "cpu_vs_first_high": found.high}


def quiet_cpu_ms(m: Measurement) -> float:
    """CPU time of one repetition as on a machine that nothing disturbs: each token by the lowest decile of all."""
    token = low_decile(m.decode_cpu_ms) if m.decode_cpu_ms else 0.0
    return token * m.generate_tokens + (low_decile(m.prompt_cpu_ms) if m.prompt_cpu_ms else 0.0)


def _cpu_ms(m: Measurement) -> float:
    return sum(m.prompt_cpu_ms) + sum(m.decode_cpu_ms)


def _per_repetition(m: Measurement) -> list[float]:
    """Wall time of each repetition: its prompt and its generated tokens."""
    size = m.generate_tokens
    generated = [sum(m.decode_wall_ms[i : i + size]) for i in range(0, len(m.decode_wall_ms), size)] if size else []
    if not generated or not m.prompt_wall_ms:
        return generated or list(m.prompt_wall_ms)
    return [a + b for a, b in zip(m.prompt_wall_ms, generated, strict=True)]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def bench_test_name(row: dict[str, Any]) -> str:
    """As llama-bench writes it: pp512, tg128, pp512+tg128, tg128 @ d2048."""
    name = "+".join(f"{name}{row[key]}" for name, key in (("pp", "n_prompt"), ("tg", "n_gen")) if row[key])
    return f"{name} @ d{row['n_depth']}" if row["n_depth"] else name


def render_bench(rows: list[dict[str, Any]], kind: str) -> str:
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
            row["model_filename"], quantities.bytes_text(row["model_size"]),
            quantities.count_text(row["model_n_params"]), row["backend"] + (" native" if row["native"] else ""),
            str(row["n_threads"]), bench_test_name(row), f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}", *percentiles,
            f"{row['rss_peak_mib']:.1f}", f"{row['bw_fraction']:.0%}" if "bw_fraction" in row else "",
        ]  # fmt: skip
        if compared:
            low, high = row.get("cpu_vs_first_low"), row.get("cpu_vs_first_high")
            cells.append(f"{row['cpu_vs_first']:.2f} ({low:.2f} to {high:.2f})" if low and high else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
