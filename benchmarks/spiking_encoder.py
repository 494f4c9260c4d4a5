"""Event layouts against dense ones on an encoder that spikes before its linear layers: CPU time of one text.

python benchmarks/spiking_encoder.py MODEL            # a directory of the family spiking-bert
python benchmarks/spiking_encoder.py --width 768      # one layer of random weights, a share of its neurons firing
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import nn

from exporters.artifact.manifest import ClassScores
from exporters.artifact.native_library import library_path
from exporters.export import export_graph
from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from targets.device.session import Session, open_session
from toolchain.calibration.activity import input_activity
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.delivery.deliver import stored_model
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.classifier import Classes
from toolchain.model.sentences import Sentences
from toolchain.model.spiking import Neurons, Spiking
from toolchain.model.spiking_bert import SpikingBertClassifier, SpikingBertConfig, SpikingBertFamily
from toolchain.search.layout import with_layouts
from toolchain.search.plan import recipe_bytes


def random_model(width: int, levels: int, threshold: float) -> LoadedModel:
    """One layer of BERT's proportions; products of deviation about 1, every threshold the same but that of what
    attention mixes, a fifth of it: means of spikes are small."""
    config = SpikingBertConfig(1, width, 4 * width, 1000, width // 64, 128, 128, Spiking(2, levels, 0.5, True))
    model = SpikingBertClassifier(config, Classes(("a", "b")))
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, (0.2 * module.in_features) ** -0.5)
        elif isinstance(module, Neurons):
            nn.init.constant_(module.threshold, threshold)
    for path, module in model.named_modules():
        if path.endswith("attention.output.spikes") and isinstance(module, Neurons):
            nn.init.constant_(module.threshold, threshold / 5)
    model.eval().requires_grad_(False)
    tree = SpikingBertFamily().tree(model)
    return LoadedModel(model, tree, Tokenizer(models.BPE()), Path(), Path(), "random", "")


def opened(model: LoadedModel, recipe: Recipe, folder: Path) -> Session:
    """The model in a recipe, exported and opened with our operators, one thread."""
    encoded: dict[str, Encoded] = {}
    for path, choice in recipe.items():
        fmt = format_named(choice.format)
        found = compress(model.weight(path), dataclasses.replace(choice, format=fmt.plain.name), None)
        encoded[path] = fmt.from_plain(found)
    folder.mkdir()
    module = stored_model(model, encoded, recipe)
    assert model.classes is not None
    classes = ClassScores(model.classes.labels, model.tree.vocabulary, whole_texts=True)
    graph = export_graph(module, [], folder, recipe_bytes(recipe, model.tree), model.forward.context, classes)
    return open_session(folder / "model.onnx", graph.io, native=library_path(), threads=1)


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--width", default=768)
@click.option("--levels", default=2)
@click.option("--threshold", default=1.0)
@click.option("--format", "format_name", default="int4-g32")
@click.option("--tokens", default=(1, 16, 64), multiple=True)
@click.option("--rounds", default=40)
def main(
    path: Path | None, width: int, levels: int, threshold: float, format_name: str, tokens: tuple[int, ...], rounds: int
) -> None:
    """Lowest deciles of CPU time per text, in turn: dense, dense with 8-bit inputs, the layouts a build chooses."""
    torch.set_num_threads(1)
    model = load_model(path) if path else random_model(width, levels, threshold)
    vocabulary = model.tree.vocabulary
    ids = torch.randint(0, vocabulary, (512,), generator=torch.Generator().manual_seed(1))
    found = input_activity(model, Sentences(ids, tuple(range(16, 513, 16)), None))
    shares = {path: 1 - activity.nonzero for path, activity in found.items()}
    dense: Recipe = {layer.path: LayerConfig(format_name, "nearest") for layer in model.tree.layers}
    rounded = {p: dataclasses.replace(c, activations="int8") for p, c in dense.items()}
    event = with_layouts(dense, model.tree, shares, ())
    turned = [p for p in event if event[p] != dense[p]]
    click.echo(f"zeros before layers: {', '.join(f'{p} {s:.0%}' for p, s in shares.items())}; {len(turned)} turned")
    with tempfile.TemporaryDirectory() as work:
        sessions = {
            name: opened(model, recipe, Path(work) / name.replace(" ", "-"))
            for name, recipe in (("dense", dense), ("dense, 8-bit inputs", rounded), ("event", event))
        }
        for count in tokens:
            text = ids[None, :count].numpy()
            times: dict[str, list[float]] = {name: [] for name in sessions}
            for _ in range(rounds):
                for name, session in sessions.items():
                    session.reset()
                    began = time.process_time_ns()
                    session.run(text)
                    times[name].append((time.process_time_ns() - began) / 1e6)
            best = {name: float(np.percentile(found, 10)) for name, found in times.items()}
            said = ", ".join(f"{name} {ms:.3f} ms ({best['dense'] / ms:.2f} x)" for name, ms in best.items())
            click.echo(f"{count} tokens: {said}")


if __name__ == "__main__":
    main()
