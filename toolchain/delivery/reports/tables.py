"""The tables of a report: quality, parity, latency, memory and provenance as names with values in units."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.artifact.manifest import ACCURACY, Manifest, Measured, Parity, Quality
from targets.device import quantities
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
        ("bits per byte, fp32", quantities.significant(quality.bits_per_byte_reference, 4)),
        ("bits per byte, compressed", quantities.significant(quality.bits_per_byte, 4)),
    )
    return (
        (f"{quality.metric}, fp32", quantities.significant(quality.reference, 5)),
        (f"{quality.metric}, compressed", quantities.significant(quality.compressed, 5)),
        ("relative drop", quantities.signed_percent(quality.relative_drop)),
        ("its upper bound, 95 %", quantities.signed_percent(quality.relative_drop_upper)),
        *(() if classifier else per_byte),
        (
            "KL divergence to fp32",
            f"{quantities.significant(quality.kl_mean)} nats per {'sentence' if classifier else 'token'}",
        ),
        ("top-1 agreement with fp32", quantities.percent(quality.top1_agreement)),
        ("sentences" if classifier else "tokens", f"{quality.tokens:,}"),
        ("text", quality.dataset),
    )


def _parity(parity: Parity | None) -> tuple[tuple[str, str], ...]:
    if parity is None:
        return ()
    return (
        ("largest difference of a logit", quantities.significant(parity.logits_max_abs)),
        ("top-1 agreement", quantities.percent(parity.top1_agreement)),
        ("perplexity, ratio", quantities.significant(parity.perplexity_ratio, 6)),
        ("tokens", f"{parity.tokens:,}"),
    )


def _own_runtime(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """What slmc-run takes, and whether it reads text; nothing where it does not go along."""
    own = manifest.slmc_run
    if own is None:
        return ()
    rows = [(f"program for {platform}", quantities.bytes_text(size)) for platform, size in own.programs.items()]
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
        ("time per token, p50", quantities.ms(own.measured.decode_ms.p50)),
        ("load", quantities.ms(own.measured.load_ms)),
        ("whole process, peak", quantities.bytes_text(own.measured.rss_peak_bytes)),
    )


def _latency(measured: Measured | None, predicted: Predicted | None) -> tuple[tuple[str, str], ...]:
    prediction = ((f"per token, predicted ({predicted.basis})", quantities.ms(predicted.ms)),) if predicted else ()
    if measured is None:
        return prediction
    decode = measured.decode_ms
    return (
        ("per token, p50", quantities.ms(decode.p50)),
        ("per token, p90", quantities.ms(decode.p90)),
        ("per token, p95", quantities.ms(decode.p95)),
        ("per token, p99", quantities.ms(decode.p99)),
        ("generation", quantities.rate(measured.decode_tps)),
        (f"prompt of {measured.prompt_tokens:,} tokens", quantities.rate(measured.prompt_tps)),
        ("load", quantities.ms(measured.load_ms)),
        ("read bandwidth of the machine", f"{quantities.significant(measured.read_bandwidth_gbs)} GB/s"),
        ("share of it that generation uses", quantities.percent(measured.bandwidth_fraction)),
        *prediction,
    )


def _memory(report: Report) -> tuple[tuple[str, str], ...]:
    sizes, measured = report.manifest.bytes, report.manifest.measured
    files = (
        ("weights as stored", quantities.bytes_text(sizes.weights)),
        ("states", quantities.bytes_text(sizes.states)),
        ("model.onnx with its data", quantities.bytes_text(sizes.file) if sizes.file else quantities.NOT_MEASURED),
    )
    if measured is None:
        return (("resident memory", quantities.NOT_MEASURED), *files)
    return (
        ("resident, peak", quantities.bytes_text(measured.rss_peak_bytes)),
        ("resident, after load", quantities.bytes_text(measured.rss_after_load_bytes)),
        ("resident, empty runtime", quantities.bytes_text(measured.rss_baseline_bytes)),
        ("peak less the empty runtime", quantities.bytes_text(measured.rss_peak_bytes - measured.rss_baseline_bytes)),
        ("private", quantities.bytes_text(measured.private_bytes)),
        ("file-backed", quantities.bytes_text(measured.file_backed_bytes)),
        *files,
    )


def provenance(report: Report) -> tuple[tuple[str, str], ...]:
    """Where the artifact comes from: digests, versions, the machine, the time."""
    manifest, measured, quality = report.manifest, report.manifest.measured, report.manifest.quality
    machine = (
        (("CPU", quantities.NOT_MEASURED),)
        if measured is None
        else (
            ("target", measured.target),
            ("CPU", measured.cpu),
            ("instruction set", measured.isa),
            ("threads", str(measured.threads)),
            ("runtime", f"ONNX Runtime {measured.ort_version}" if measured.ort_version else measured.runtime),
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
    sizes = quantities.bytes_text(layer.bytes_fp32), quantities.bytes_text(layer.bytes)
    shape = f"{layer.rows} x {layer.cols}"
    return layer.path, shape, layer.format, layer.method, layer.activations, f"{bits:.2f}", *sizes


def frontier_points(report: Report) -> list[TriedCandidate]:
    """The candidates on the frontier and the winner, by rising bytes."""
    return sorted((p for p in report.points if p.on_frontier or p.winner), key=lambda p: (p.bytes, p.drop))


def point_cells(point: TriedCandidate, report: Report) -> tuple[str, ...]:
    """A row of the table of the frontier: bytes, share, drop, upper bound, KL, predicted time, tier, why."""
    share = quantities.percent(point.bytes / fp32_bytes(report))
    drops = quantities.signed_percent(point.drop), quantities.signed_percent(point.upper)
    kl, time = quantities.significant(point.kl_mean), _ms(point.predicted_ms)
    return quantities.bytes_text(point.bytes), share, *drops, kl, time, point.tier, point.why


FAMILY_HEAD = ("family", "layers chosen", "best candidate", "bytes", "of fp32", "drop", "at most", "dense, same bytes",
               "predicted", "dense, predicted", "verdict")  # fmt: skip


def family_cells(row: FamilyResult, report: Report) -> tuple[str, ...]:
    """A row under FAMILY_HEAD."""
    share = quantities.percent(row.bytes / fp32_bytes(report))
    dense = "" if row.dense_drop is None else quantities.signed_percent(row.dense_drop)
    drops = quantities.signed_percent(row.drop), quantities.signed_percent(row.upper), dense
    times = _ms(row.predicted_ms), _ms(row.dense_ms)
    return (
        row.family,
        str(row.layers),
        row.formats,
        quantities.bytes_text(row.bytes),
        share,
        *drops,
        *times,
        row.verdict,
    )


TRANSFORMATION_HEAD = ("rotated", "expected loss before", "after", "change", "taken")


def transformation_cells(row: Transformation) -> tuple[str, ...]:
    """A row under TRANSFORMATION_HEAD; losses in nats per token."""
    change = quantities.signed_percent(row.after / row.before - 1) if row.before > 0 else ""
    place = row.place if row.place == STREAM else f"inputs of {row.place}"
    return place, f"{row.before:.3g}", f"{row.after:.3g}", change, "yes" if row.taken else "no"


def _ms(value: float | None) -> str:
    return "" if value is None else quantities.ms(value)
