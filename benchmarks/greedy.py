"""Greedy tokens of slmc-run beside ONNX Runtime with our operators: ARTIFACT... and, with --families, a random model
of every family.

    PYTHONPATH=tests/helpers python benchmarks/greedy.py --families OUT... [--tokens 2000]

Both read the tokens that ONNX Runtime finds best, one by one, so that one near tie does not hide what comes behind it.
Printed: how many of slmc-run's best tokens are the same, the largest difference of logits relative to the largest
logit, and where they part, how far apart ONNX Runtime's two best logits are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from decoders import opt_config
from family_cases import CASES, VOCABULARY
from random_llama import write_tokenizer
from safetensors.torch import save_file
from torch import nn
from uniform import export_uniform

from exporters.artifact.manifest import Io, read_manifest
from exporters.artifact.native_library import library_path
from exporters.export import GRAPH_NAME
from targets.device.session import open_session
from targets.runtime.program import installed_program
from targets.runtime.session import ServedSession
from toolchain.model.catalog import load_model
from toolchain.model.decoder import Decoder
from toolchain.model.family import ModelOptions
from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig

TOKENIZER = Path(__file__).parents[1] / "samples" / "spikegpt-6m" / "tokenizer.json"
PROMPT = (1, 2, 3, 5, 8, 13, 21, 34)


def long_opt() -> tuple[nn.Module, dict[str, Any]]:
    """The case of family_cases with positions enough."""
    config = opt_config(1, 32, 48, VOCABULARY, embedding=16, heads=4, positions=4096)
    return Decoder(config), {"model_type": "opt", "num_attention_heads": 4, "tie_word_embeddings": False}


def spikegpt() -> tuple[nn.Module, dict[str, Any]]:
    config = SpikeGptConfig(2, 32, 128, VOCABULARY)
    sizes = {"layers": 2, "width": 32, "hidden": 128, "vocabulary": VOCABULARY}
    return SpikeGpt(config), {"model_type": "spikegpt", **sizes, "tau": config.tau, "threshold": config.threshold}


FAMILIES = {"spikegpt": spikegpt, **{name: make for name, (make, _) in CASES.items()}, "opt": long_opt}


def random_artifact(name: str, folder: Path, tokens: int) -> tuple[Path, Io]:
    """A random model of a family, every layer in four bits with inputs of eight, as far as a runtime reads it."""
    torch.manual_seed(7)
    module, config = FAMILIES[name]()
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    if "max_position_embeddings" in config:
        config["max_position_embeddings"] = 4096
    tied = config.get("tie_word_embeddings")
    source = folder / "source"
    source.mkdir()
    tensors = {n: t.contiguous() for n, t in module.state_dict().items() if not (tied and "lm_" in n)}
    save_file(tensors, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(TOKENIZER, source / "tokenizer.json", VOCABULARY)
    options = ModelOptions(context=tokens + len(PROMPT)) if "num_attention_heads" in config else ModelOptions()
    loaded = load_model(source, options=options)
    out = folder / "out"
    io = export_uniform(loaded, out, "int4-g32", activations="int8").io
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in out.glob("model.onnx*")
    }
    manifest = {"schema_version": 1, "io": dataclasses.asdict(io), "files": files}
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return out, io


def compare(name: str, folder: Path, io: Io, tokens: int, program: Path) -> None:
    """Prints one line."""
    theirs = open_session(folder / GRAPH_NAME, io, native=library_path())
    ours = ServedSession(program, folder, io, 1)
    prompt = np.array([PROMPT], np.int64)
    reference, found = theirs.run(prompt)[0, -1], ours.run(prompt)[0, -1]
    same, largest, parted, room = 0, 0.0, "", min(tokens, theirs.room or tokens)
    for at in range(room):
        best = int(reference.argmax())
        largest = max(largest, float(np.abs(found - reference).max() / np.abs(reference).max()))
        if int(found.argmax()) == best:
            same += 1
        elif not parted:
            gap = float(reference[best] - reference[int(found.argmax())])
            parted = f"; first parted at token {at}, where the two logits are {gap:.2g} apart"
        if at + 1 < room:
            token = np.array([[best]], np.int64)
            reference, found = theirs.run(token)[0, -1], ours.run(token)[0, -1]
    print(f"{name}: {same} of {room} tokens the same, logits within {largest:.1e}{parted}", flush=True)


@click.command(help=__doc__)
@click.argument("artifacts", type=click.Path(exists=True, path_type=Path), nargs=-1)
@click.option("--families", is_flag=True)
@click.option("--tokens", default=2000)
@click.option(
    "--program", type=click.Path(exists=True, path_type=Path), help="Another slmc-run than the installed one."
)
def main(artifacts: tuple[Path, ...], families: bool, tokens: int, program: Path | None) -> None:
    program = program or installed_program()
    for folder in artifacts:
        compare(folder.name, folder, read_manifest(folder).io, tokens, program)
    for name in FAMILIES if families else ():
        with tempfile.TemporaryDirectory() as place:
            folder, io = random_artifact(name, Path(place), tokens)
            compare(name, folder, io, tokens, program)


if __name__ == "__main__":
    main()
