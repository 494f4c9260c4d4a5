"""Predicted against measured time per token over 17 artifacts on this machine: uniform formats and mixes of two models.

    slmc targets probe -o here.toml
    python benchmarks/latency_model.py --target here.toml --work latency-work

Artifacts are made once and kept in --work; weights are rounded to nearest, because time does not depend on their
quality. Times are CPU time of one thread, in a child process each, two rounds, normalised: the reference work's time
when the target was probed over its time beside the measurement. Of either the lowest decile is taken, as the costs are:
the machine as it is when nothing disturbs it. The median is printed beside it.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import click
import torch

from exporters.artifact.manifest import Io
from exporters.artifact.parsing import parse
from exporters.export import export_graph
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.graph_nodes import read_workload
from targets.cpus.cost import predict
from targets.cpus.spec import read_cpu
from targets.device.clock import low_decile, median
from targets.device.measurement import MeasureRequest
from targets.device.probing import Task, measure_reference
from targets.measure.child import measure
from toolchain.compress.recipe import LayerConfig
from toolchain.delivery.deliver import stored_model
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import ModelOptions

ROOT = Path(__file__).parents[1]
MIXES = {
    "int8+int4-g64": ("int8", "int4-g64"),
    "fp16+int2-g64": ("fp16", "int2-g64"),
    "int5+int3-g64": ("int5-g64", "int3-g64"),
}
"""Name -> formats that the layers take in turn."""
UNIFORM = ("fp32", "fp16", "int8", "int6-g64", "int4-g32", "int4-g64", "uint4-g64", "int2-g64")
SMALL = (*UNIFORM, "int8+int4-g64", "fp16+int2-g64", "int4-g64 x8")
LARGE = (
    "fp16", "int8", "int4-g64", "int3-g64", "int2-g64", "int8+int4-g64", "int5+int3-g64", "int4-g64 x8", "int8 x8",
)  # fmt: skip
CASES = [("6m", name) for name in SMALL] + [("27m", name) for name in LARGE]
BAR = 0.2
ROUNDED = " x8"
"""Behind a name: products round their inputs to 8 bits."""


def model_of(size: str, work: Path) -> LoadedModel:
    """The sample, or one of 8 layers, width 512 and 2048 tokens with random weights."""
    sample = ROOT / "samples" / "spikegpt-6m"
    if size == "6m":
        return load_model(sample)
    checkpoint = work / "27m.pth"
    if not checkpoint.exists():
        sys.path.insert(0, str(Path(__file__).parent))
        from random_spikegpt import main as write

        write([str(checkpoint), "--layers", "8", "--width", "512", "--vocabulary", "2048"], standalone_mode=False)
    return load_model(checkpoint, sample / "tokenizer.json", ModelOptions(family="spikegpt"))


def export(model: LoadedModel, name: str, folder: Path) -> None:
    """The artifact's graph and its io.json, whole or not at all."""
    plain, rounded = name.removesuffix(ROUNDED), name.endswith(ROUNDED)
    formats, encoded, recipe = MIXES.get(plain, (plain,)), {}, {}
    size = 4 * model.tree.vector_params
    for i, layer in enumerate(model.tree.layers):
        fmt = format_named(layer.exact or formats[i % len(formats)])
        weight = model.module.get_submodule(layer.path).weight.detach().float().numpy()
        encoded[layer.path] = fmt.encode(weight)
        size += bytes_for(fmt, layer.rows, layer.cols)
        recipe[layer.path] = LayerConfig(fmt.name, "nearest", "int8" if rounded else "fp32")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    graph = export_graph(stored_model(model, encoded, recipe), model.forward.state_specs(), partial, size)
    (partial / "io.json").write_text(json.dumps(asdict(graph.io)))
    partial.rename(folder)


def measured_ms(folder: Path, usual_us: float) -> tuple[float, float]:
    """Lowest decile and median of the CPU time per token, the former as on the machine at its usual speed."""
    io: Io = parse(Io, json.loads((folder / "io.json").read_text()), "io.json")
    request = MeasureRequest(prompt_tokens=0, generate_tokens=24, repetitions=30, bandwidth=False, budget_s=2.0)
    before = measure_reference(Task("reference"), Path()).value
    m = measure(folder, io, request)
    beside = min(before, measure_reference(Task("reference"), Path()).value)
    return low_decile(m.decode_cpu_ms) * usual_us / beside, median(m.decode_cpu_ms)


@click.command()
@click.option("--target", type=click.Path(path_type=Path), required=True, help="A file of 'slmc targets probe'.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Where the artifacts are kept.")
@click.option("--make-only", is_flag=True, help="Make the artifacts and measure nothing.")
def main(target: Path, work: Path, make_only: bool) -> None:
    """Print the table, and how many are within 20 %."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    for size in ("6m", "27m"):
        missing = [name for s, name in CASES if s == size and not (work / f"{s}-{name}").exists()]
        model = model_of(size, work) if missing else None
        for name in missing:
            assert model is not None
            export(model, name, work / f"{size}-{name}")
    if make_only:
        return
    cpu = read_cpu(target)
    assert cpu.reference_us is not None
    rounds = [[measured_ms(work / f"{s}-{n}", cpu.reference_us) for s, n in CASES] for _ in range(2)]
    print("| artifact | MB per token | predicted ms | measured ms | error | median ms | nodes without a matrix |")
    print("|---" * 7 + "|")
    errors = []
    for (size, name), *times in zip(CASES, *rounds, strict=True):
        found = predict(cpu, read_workload(work / f"{size}-{name}" / "model.onnx"))
        actual = min(t for t, _ in times)
        errors.append(found.decode_ms / actual - 1)
        print(
            f"| {size} {name} | {found.weight_bytes / 1e6:.2f} | {found.decode_ms:.3f} | {actual:.3f} "
            f"| {errors[-1]:+.1%} | {median([t for _, t in times]):.3f} "
            f"| {(found.others_ms + found.call_ms) / found.decode_ms:.0%} |"
        )
    within, usual = sum(abs(e) <= BAR for e in errors), median([abs(e) for e in errors])
    print(f"\n{within} of {len(errors)} within {BAR:.0%}; median {usual:.1%}, worst {max(errors, key=abs):+.1%}")


if __name__ == "__main__":
    main()
