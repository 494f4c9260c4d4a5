"""The tables of a report: quality, parity, latency, memory and provenance as names with values in units."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.artifact.manifest import ACCURACY, Manifest, Measured, Parity, Quality
from targets.device import units
from toolchain.delivery.reports.data import LayerRow, Predicted, Report
from toolchain.delivery.reports.frontier import fp32_bytes
from toolchain.delivery.reports.palette import bits_per_weight
from toolchain.search.outcome import FamilyResult, TriedCandidate
from toolchain.transform.transformation import STREAM, Transformation


@dataclass(frozen=True)
class Table:
    """Rows of name and value; empty rows mean that it was not measured. `note` says what the numbers are of."""

    name: str
    note: str
    rows: tuple[tuple[str, str], ...]


def tables(report: Report) -> list[Table]:
    """Quality, parity, latency and memory, always all four; slmc-run where it goes along."""
    manifest = report.manifest
    own = Table("slmc-run", "the same artifact without Python and without ONNX Runtime", _own_runtime(manifest))
    return [
        Table("Quality", "the artifact on ONNX Runtime compared with the fp32 model", _quality(manifest.quality)),
        Table("Parity", "the artifact on ONNX Runtime against torch with the same recipe", _parity(manifest.parity)),
        Table(
            "Latency and speed",
            "measured in a separate process on the target, and predicted from the target's file",
            _latency(manifest.measured, report.predicted),
        ),
        Table("Memory", "of the measured process and of the files", _memory(report)),
        *((own,) if own.rows else ()),
    ]


def _quality(quality: Quality | None) -> tuple[tuple[str, str], ...]:
    if quality is None:
        return ()
    classifier = quality.metric == ACCURACY
    per_byte = (
        ("bits per byte, fp32", units.significant(quality.bits_per_byte_reference, 4)),
        ("bits per byte, compressed", units.significant(quality.bits_per_byte, 4)),
    )
    return (
        (f"{quality.metric}, fp32", units.significant(quality.reference, 5)),
        (f"{quality.metric}, compressed", units.significant(quality.compressed, 5)),
        ("relative drop", units.signed_percent(quality.relative_drop)),
        ("its upper bound, 95 %", units.signed_percent(quality.relative_drop_upper)),
        *(() if classifier else per_byte),
        (
            "KL divergence to fp32",
            f"{units.significant(quality.kl_mean)} nats per {'sentence' if classifier else 'token'}",
        ),
        ("top-1 agreement with fp32", units.percent(quality.top1_agreement)),
        ("sentences" if classifier else "tokens", f"{quality.tokens:,}"),
        ("text", quality.dataset),
    )


def _parity(parity: Parity | None) -> tuple[tuple[str, str], ...]:
    if parity is None:
        return ()
    return (
        ("largest difference of a logit", units.significant(parity.logits_max_abs)),
        ("top-1 agreement", units.percent(parity.top1_agreement)),
        ("perplexity, ratio", units.significant(parity.perplexity_ratio, 6)),
        ("tokens", f"{parity.tokens:,}"),
    )


def _own_runtime(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """What slmc-run takes, and whether it reads text; nothing where it does not go along."""
    own = manifest.slmc_run
    if own is None:
        return ()
    rows = [(f"program for {platform}", units.bytes_text(size)) for platform, size in own.programs.items()]
    rows.append(
        (
            "text",
            "tokenized as by the tokenizers library" if own.tokenizer is None else f"token ids only: {own.tokenizer}",
        )
    )
    if own.measured is None:
        return tuple(rows)
    return (
        *rows,
        ("time per token, p50", units.ms(own.measured.decode_ms.p50)),
        ("load", units.ms(own.measured.load_ms)),
        ("whole process, peak", units.bytes_text(own.measured.rss_peak_bytes)),
    )


def _latency(measured: Measured | None, predicted: Predicted | None) -> tuple[tuple[str, str], ...]:
    prediction = ((f"per token, predicted ({predicted.basis})", units.ms(predicted.ms)),) if predicted else ()
    if measured is None:
        return prediction
    decode = measured.decode_ms
    return (
        ("per token, p50", units.ms(decode.p50)),
        ("per token, p90", units.ms(decode.p90)),
        ("per token, p95", units.ms(decode.p95)),
        ("per token, p99", units.ms(decode.p99)),
        ("generation", units.rate(measured.decode_tps)),
        (f"prompt of {measured.prompt_tokens:,} tokens", units.rate(measured.prompt_tps)),
        ("load", units.ms(measured.load_ms)),
        ("read bandwidth of the machine", f"{units.significant(measured.read_bandwidth_gbs)} GB/s"),
        ("share of it that generation uses", units.percent(measured.bandwidth_fraction)),
        *prediction,
    )


def _memory(report: Report) -> tuple[tuple[str, str], ...]:
    sizes, measured = report.manifest.bytes, report.manifest.measured
    files = (
        ("weights as stored", units.bytes_text(sizes.weights)),
        ("states", units.bytes_text(sizes.states)),
        ("model.onnx with its data", units.bytes_text(sizes.file) if sizes.file else units.NOT_MEASURED),
    )
    if measured is None:
        return (("resident memory", units.NOT_MEASURED), *files)
    return (
        ("resident, peak", units.bytes_text(measured.rss_peak_bytes)),
        ("resident, after load", units.bytes_text(measured.rss_after_load_bytes)),
        ("resident, empty runtime", units.bytes_text(measured.rss_baseline_bytes)),
        ("peak less the empty runtime", units.bytes_text(measured.rss_peak_bytes - measured.rss_baseline_bytes)),
        ("private", units.bytes_text(measured.private_bytes)),
        ("file-backed", units.bytes_text(measured.file_backed_bytes)),
        *files,
    )


def provenance(report: Report) -> tuple[tuple[str, str], ...]:
    """Where the artifact comes from: digests, versions, the machine, the time."""
    manifest, measured, quality = report.manifest, report.manifest.measured, report.manifest.quality
    machine = (
        (("CPU", units.NOT_MEASURED),)
        if measured is None
        else (
            ("target", measured.target),
            ("CPU", measured.cpu),
            ("instruction set", measured.isa),
            ("threads", str(measured.threads)),
            ("ONNX Runtime", measured.ort_version),
            ("kernels", "native library" if measured.native else "function bodies on stock ONNX Runtime"),
        )
    )
    text = () if quality is None else (("evaluation text", quality.dataset), ("its sha256", quality.dataset_sha256))
    origin = () if manifest.source.origin is None else (("its weights", manifest.source.origin),)
    return (
        ("model", f"{manifest.source.path_name} ({manifest.source.family})"),
        *origin,
        ("its sha256", manifest.source.sha256),
        ("parameters", f"{manifest.source.params:,}"),
        ("made by", f"{manifest.producer.name} {manifest.producer.version}"),
        ("created", manifest.created),
        *((("texts", report.texts),) if report.texts else ()),
        ("objective of the search", report.objective or "none given"),
        *machine,
        *text,
    )


def layer_cells(layer: LayerRow) -> tuple[str, ...]:
    """A row of the table of layers: path, shape, format, method, inputs, bits per weight, bytes before and after."""
    bits = bits_per_weight(layer.bytes, layer.rows, layer.cols)
    sizes = units.bytes_text(layer.bytes_fp32), units.bytes_text(layer.bytes)
    shape = f"{layer.rows} x {layer.cols}"
    return layer.path, shape, layer.format, layer.method, layer.activations, f"{bits:.2f}", *sizes


def frontier_points(report: Report) -> list[TriedCandidate]:
    """The candidates on the frontier and the winner, by rising bytes."""
    return sorted((p for p in report.points if p.on_frontier or p.winner), key=lambda p: (p.bytes, p.drop))


def point_cells(point: TriedCandidate, report: Report) -> tuple[str, ...]:
    """A row of the table of the frontier: bytes, share, drop, upper bound, KL, predicted time, tier, why."""
    share = units.percent(point.bytes / fp32_bytes(report))
    drops = units.signed_percent(point.drop), units.signed_percent(point.upper)
    kl, time = units.significant(point.kl_mean), _ms(point.predicted_ms)
    return units.bytes_text(point.bytes), share, *drops, kl, time, point.tier, point.why


FAMILY_HEAD = ("family", "layers chosen", "best candidate", "bytes", "of fp32", "drop", "at most", "dense, same bytes",
               "predicted", "dense, predicted", "verdict")  # fmt: skip


def family_cells(row: FamilyResult, report: Report) -> tuple[str, ...]:
    """A row under FAMILY_HEAD."""
    share = units.percent(row.bytes / fp32_bytes(report))
    dense = "" if row.dense_drop is None else units.signed_percent(row.dense_drop)
    drops = units.signed_percent(row.drop), units.signed_percent(row.upper), dense
    times = _ms(row.predicted_ms), _ms(row.dense_ms)
    return row.family, str(row.layers), row.formats, units.bytes_text(row.bytes), share, *drops, *times, row.verdict


TRANSFORMATION_HEAD = ("rotated", "expected cost before", "after", "change", "taken")


def transformation_cells(row: Transformation) -> tuple[str, ...]:
    """A row under TRANSFORMATION_HEAD; costs in nats per token."""
    change = units.signed_percent(row.after / row.before - 1) if row.before > 0 else ""
    place = row.place if row.place == STREAM else f"inputs of {row.place}"
    return place, f"{row.before:.3g}", f"{row.after:.3g}", change, "yes" if row.taken else "no"


def _ms(value: float | None) -> str:
    return "" if value is None else units.ms(value)
