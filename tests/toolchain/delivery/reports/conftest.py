"""Two reports to render: one as a real build leaves it, one with everything missing or hostile."""

from __future__ import annotations

import dataclasses
import random

import pytest

from exporters.artifact.manifest import (
    Bytes,
    Constraint,
    FileEntry,
    Io,
    Manifest,
    Measured,
    Parity,
    Percentiles,
    Producer,
    Quality,
    RecipeEntry,
    Source,
    State,
)
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from toolchain.delivery.reports.data import LayerRow, Report
from toolchain.search.outcome import LayerLoss, TriedCandidate

BLOCKS, WIDTH, HIDDEN, VOCABULARY = 6, 256, 1024, 4096
SHAPES = {
    "att.key": (WIDTH, WIDTH),
    "att.value": (WIDTH, WIDTH),
    "att.receptance": (WIDTH, WIDTH),
    "att.output": (WIDTH, WIDTH),
    "ffn.key": (HIDDEN, WIDTH),
    "ffn.receptance": (WIDTH, WIDTH),
    "ffn.value": (WIDTH, HIDDEN),
}
FORMATS = ("fp16", "int8", "int6-g64", "int5-g64", "int4-g64", "int3-g64", "int2-g64")
CHOSEN = ("int6-g64", "int4-g64", "int4-g64", "int3-g64", "int3-g64", "int2-g64")
HOSTILE = "<script>alert('x')</script>|`*&\x00"
OTHER_BYTES = 4 * WIDTH * (11 * BLOCKS + 4)


def size(name: str, rows: int, cols: int) -> int:
    return bytes_for(format_named(name), rows, cols)


def layer(path: str, block: str, rows: int, cols: int, name: str) -> LayerRow:
    method = "rounding" if name == "sign" else "gptq"
    return LayerRow(path, block, rows, cols, name, method, size(name, rows, cols), 4 * rows * cols)


def layers(dice: random.Random) -> tuple[LayerRow, ...]:
    """44 layers: an embedding of signs, six blocks of seven, a head."""
    found = [layer("emb", "emb", VOCABULARY, WIDTH, "sign")]
    for b in range(BLOCKS):
        for module, (rows, cols) in SHAPES.items():
            found.append(layer(f"blocks.{b}.{module}", f"blocks.{b}", rows, cols, dice.choice(CHOSEN)))
    return (*found, layer("head", "head", VOCABULARY, WIDTH, "int4-g64"))


def drop_at(share: float, dice: random.Random) -> float:
    """A relative drop that falls steeply with the share of the fp32 bytes that is left."""
    return 0.00035 * (0.5 / share) ** 3.2 * dice.uniform(0.7, 2.2) - 0.0004


def points(
    rows: tuple[LayerRow, ...], states_bytes: int, weights_bytes: int, dice: random.Random
) -> tuple[TriedCandidate, ...]:
    """60 candidates of three tiers; the frontier is what nothing dominates, the winner the smallest under 1 %."""
    whole = sum(row.bytes_fp32 for row in rows) + OTHER_BYTES + states_bytes
    found: list[tuple[int, float, str, str]] = []
    for name in FORMATS:
        stored = sum(size("sign" if row.path == "emb" else name, row.rows, row.cols) for row in rows)
        total = stored + OTHER_BYTES + states_bytes
        found.append((total, drop_at(total / whole, dice), "global", f"every layer in {name}"))
    for i in range(23):
        total = int(whole * dice.uniform(0.07, 0.2))
        found.append((total, drop_at(total / whole, dice) * 0.7, "block", f"block {i % BLOCKS} one format down"))
    for i in range(29):
        total = int(whole * dice.uniform(0.07, 0.14))
        found.append((total, drop_at(total / whole, dice) * 0.45, "module", f"knapsack under {total} bytes, try {i}"))
    found.append((weights_bytes + states_bytes, 0.0071, "module", "confirmed with 4 times the text"))
    best = {f for f in found if not any(g[0] <= f[0] and g[1] <= f[1] and g[:2] != f[:2] for g in found)}
    return tuple(
        TriedCandidate(
            b, drop, drop * 1.25 + 0.001, abs(drop) * 0.4, tier, why, (b, drop, tier, why) in best, drop == 0.0071
        )
        for b, drop, tier, why in found
    )


def sensitivities(rows: tuple[LayerRow, ...], dice: random.Random) -> tuple[LayerLoss, ...]:
    """Every layer in every format: some 3 times as much KL for every bit less."""
    found = []
    for row in rows:
        base = 10 ** dice.uniform(-6.3, -5.0) * (4 if "receptance" not in row.path else 1)
        for i, name in enumerate(FORMATS):
            kl = base * 4.2**i * dice.uniform(0.7, 1.4)
            found.append(LayerLoss(row.path, name, kl, size(name, row.rows, row.cols)))
    return tuple(found)


def manifest_of(rows: tuple[LayerRow, ...], states_bytes: int) -> Manifest:
    weights = sum(row.bytes for row in rows) + OTHER_BYTES
    fp32 = sum(row.bytes_fp32 for row in rows) + OTHER_BYTES
    return Manifest(
        schema_version=1,
        producer=Producer("slmc", "0.1.0"),
        created="2025-11-22T06:30:00+00:00",
        source=Source("spikegpt-stories-7m", "spikegpt", "3f" * 32, 7_210_000),
        io=Io("tokens", "logits", (State("s0", "s0_out", (1, WIDTH), "float32", 0.0),)),
        recipe={
            r.path: RecipeEntry(r.format, r.method, "int8", r.bytes, r.bytes * 8 / (r.rows * r.cols)) for r in rows
        },
        bytes=Bytes(weights, fp32, states_bytes, weights + 61_000),
        quality=Quality(
            metric="perplexity",
            dataset="samples/text/evaluation.txt",
            dataset_sha256="a0" * 32,
            tokens=65_536,
            reference=11.842,
            compressed=11.931,
            relative_drop=0.00752,
            relative_drop_upper=0.0098,
            bits_per_byte=1.0342,
            bits_per_byte_reference=1.0311,
            kl_mean=0.00731,
            top1_agreement=0.9634,
        ),
        parity=Parity(0.0021, 0.9993, 1.000012, 4096),
        measured=Measured(
            target="cortex-a53",
            cpu="Cortex-A53 at 1.4 GHz",
            isa="neon",
            threads=4,
            ort_version="1.24.0",
            native=True,
            prompt_tokens=128,
            prompt_tps=812.4,
            decode_ms=Percentiles(5.84, 6.02, 6.31, 7.9),
            decode_tps=168.3,
            load_ms=41.2,
            rss_peak_bytes=31_400_000,
            rss_after_load_bytes=29_800_000,
            rss_baseline_bytes=25_100_000,
            private_bytes=3_900_000,
            file_backed_bytes=2_700_000,
            read_bandwidth_gbs=2.31,
            bandwidth_fraction=0.212,
        ),
        constraints=(
            Constraint("weights and states", 3_600_000, weights + states_bytes, "bytes", True),
            Constraint("relative drop", 0.01, 0.0098, "relative", True),
            Constraint("latency p50", 5.0, 5.84, "ms", False),
        ),
        files={"model.onnx": FileEntry(61_000, "b1" * 32)},
    )


@pytest.fixture(scope="session")
def report() -> Report:
    """44 layers in six blocks with embedding and head, 60 candidates, 308 sensitivities, one constraint not met."""
    dice = random.Random(7)
    rows, states_bytes = layers(dice), 4 * WIDTH * 7 * BLOCKS
    manifest = manifest_of(rows, states_bytes)
    return Report(
        manifest=manifest,
        layers=rows,
        points=points(rows, states_bytes, manifest.bytes.weights, dice),
        sensitivities=sensitivities(rows, dice),
        max_bytes=3_600_000,
        max_drop=0.01,
        objective="least bytes under both limits",
        sample_prompt="Once upon a time",
        sample_text=" there was a little fox who lived by the sea.\nEvery morning she counted the boats.",
    )


@pytest.fixture(scope="session")
def edge(report: Report) -> Report:
    """A dry artifact: nothing measured, no constraints, one candidate without any drop, names that attack the page."""
    rows = (
        LayerRow(HOSTILE, HOSTILE, 4, 8, HOSTILE, HOSTILE, 16, 128),
        LayerRow("stray", "elsewhere", 0, 0, "fp32", "none", 0, 0),
    )
    manifest = dataclasses.replace(
        report.manifest,
        source=Source(HOSTILE, HOSTILE, HOSTILE, 32),
        bytes=Bytes(16, 128, 0, 0),
        quality=None,
        parity=None,
        measured=None,
        constraints=(),
        recipe={},
        files={},
    )
    return Report(
        manifest=manifest,
        layers=rows,
        points=(TriedCandidate(16, 0.0, 0.0, 0.0, "global", HOSTILE, True, True),),
        sensitivities=(LayerLoss(HOSTILE, HOSTILE, 0.0, 16), LayerLoss("gone", "int8", float("nan"), 8)),
        max_bytes=None,
        max_drop=None,
        objective="",
        sample_prompt=HOSTILE,
        sample_text="\ud800",
    )
