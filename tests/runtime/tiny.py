"""Artifacts of random tiny models, one per family, in formats of every kind: what the runtime is read against."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from decoders import family, llama_config, opt_config
from family_cases import matmulfree, rwkv7, symboliclight
from torch import nn

from exporters.artifact.manifest import ClassScores
from exporters.export import export_graph, graph_io
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.ops.layers import Biased
from exporters.ops.modules import stored_module
from toolchain.model.classifier import Classes
from toolchain.model.decoder import Decoder
from toolchain.model.families import FAMILIES
from toolchain.model.rwkv4 import Rwkv4, Rwkv4Family
from toolchain.model.spikegpt import SpikeGpt, SpikeGptClassifier, SpikeGptConfig, SpikeGptFamily
from toolchain.model.spiking import Spiking
from toolchain.model.spiking_bert import SpikingBertClassifier, SpikingBertConfig, SpikingBertFamily

VOCABULARY = 300
FORMATS = ("int8", "int6-g64", "int5-g64", "int4-g32", "int3-g32", "uint4-g64", "int2-g32", "fp16", "fp32", "uint8",
           "event/int4-g64", "2:4/int4-g64", "4:8x16/int4-g64", "fp4-g16", "1:8/int8+6:8/fp4-g16", "diag+int4-g64",
           "lr4+int4-g64", "ternary-g64")  # fmt: skip

Made = tuple[nn.Module, Any, tuple[str, ...]]
"""A model, its family, the formats that its embedding, its head and its other layers take in turn."""


def spikegpt() -> Made:
    return SpikeGpt(SpikeGptConfig(3, 64, 128, VOCABULARY, True, 0)), SpikeGptFamily(), ("sign", "int4-g32", *FORMATS)


def rescaled() -> Made:
    return SpikeGpt(SpikeGptConfig(2, 32, 48, VOCABULARY, False, 1)), SpikeGptFamily(), ("uint5-g16", "fp32", "int8")


def rwkv() -> Made:
    return Rwkv4(SpikeGptConfig(2, 64, 128, VOCABULARY)), Rwkv4Family(), ("fp16", "int8", *FORMATS)


def llama() -> Made:
    config = llama_config(2, 64, 96, VOCABULARY, heads=8, groups=2, head_size=8, context=96, tied=False)
    return Decoder(config), family("llama"), ("int4-g32", "int6-g32", *FORMATS)


def opt() -> Made:
    config = opt_config(2, 64, 96, VOCABULARY, embedding=32, heads=4, positions=96)
    return Decoder(config), family("opt"), ("int8", "int4-g32", *FORMATS)


def pooled(pooling: str) -> Callable[[], Made]:
    def make() -> Made:
        classes = Classes(("bad", "good", "neither"), pooling)
        model = SpikeGptClassifier(SpikeGptConfig(1, 32, 64, VOCABULARY, True, 0), classes)
        return model, SpikeGptFamily(), ("sign", "fp32", "int8", "int4-g32")

    return make


def encoder(steps: int, pooler: bool) -> Callable[[], Made]:
    def make() -> Made:
        config = SpikingBertConfig(2, 64, 96, VOCABULARY, 4, 48, 48, Spiking(steps, 2 + pooler, 0.5, pooler), 2, pooler)
        model = SpikingBertClassifier(config, Classes(("no", "yes"), "first" if pooler else "mean", True))
        return model, SpikingBertFamily(), ("int8", "fp32", "event/int4-g64", "int8", "int4-g32", "event/int8")

    return make


def other(case: Callable[[], tuple[nn.Module, dict[str, Any]]]) -> Callable[[], Made]:
    """The small model of a family's tests, in formats for matrices of any shape."""

    def make() -> Made:
        model, _ = case()
        (family,) = (f for f in FAMILIES if f.name == case.__name__)
        return model, family, ("int8", "int4-g32", "int8", "fp16", "uint4-g64", "fp32", "int6-g64")

    return make


MODELS: dict[str, Callable[[], Made]] = {
    "spikegpt": spikegpt,
    "rescaled": rescaled,
    "rwkv": rwkv,
    "llama": llama,
    "opt": opt,
    "matmulfree": other(matmulfree),
    "rwkv7": other(rwkv7),
    "symboliclight": other(symboliclight),
    "classes-mean": pooled("mean"),
    "classes-last": pooled("last"),
    "classes-first": pooled("first"),
    "encoder": encoder(3, False),
    "encoder-pooler": encoder(2, True),
}


def _randomised(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "time_mix" in name:
            parameter.data.uniform_(0, 1)
        elif parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
        else:
            parameter.data.normal_(0, 0.4)


def _compressed(model: nn.Module, family: Any, formats: tuple[str, ...], activations: int) -> int:
    """Puts every layer into a format; the bytes of all weights by the formats' size law."""
    tree = family.tree(model)
    total = 4 * tree.vector_params
    first, last, *others = formats
    linear: Iterator[str] = itertools.cycle(others)
    for layer in tree.layers:
        by_kind = {"embedding": first, "positions": "fp32"}
        name = last if layer is tree.layers[-1] else by_kind.get(layer.kind) or next(linear)
        fmt = format_named(name)
        module = model.get_submodule(layer.path)
        kind = "linear" if layer.kind == "linear" else "embedding"
        stored = stored_module(fmt.encode(module.weight.detach().numpy()), kind, activations)  # type: ignore[operator, union-attr]
        bias = getattr(module, "bias", None)
        model.set_submodule(layer.path, stored if bias is None else Biased(stored, bias))
        total += bytes_for(fmt, layer.rows, layer.cols)
    return total


def write(name: str, folder: Path, kv_cache: str = "fp32", activations: int = 32) -> Path:
    """The artifact of the model called `name`: the graph, its data and as much of a manifest as a runtime reads."""
    torch.manual_seed(11)
    model, family, formats = MODELS[name]()
    model = model.requires_grad_(False).eval()
    _randomised(model)
    tree = family.tree(model)
    head = tree.head or tree.layers[-1].path
    weight_bytes = _compressed(model, family, formats, activations)
    if kv_cache != "fp32":
        model.kv_cache = kv_cache
    classes = getattr(model, "classes", None)
    scores = ClassScores(classes.labels, VOCABULARY, bool(model.whole_texts)) if classes else None
    specs, context = model.state_specs(), model.context  # type: ignore[operator]
    head = None if scores else head
    export_graph(model, specs, folder, weight_bytes, context, scores, head)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.glob("model.onnx*"))
    }
    io = dataclasses.asdict(graph_io(specs, context, scores, head))
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "io": io, "files": files}))
    return folder
