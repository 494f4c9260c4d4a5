"""A model of which every layer is in one format, as the graph of an artifact: what speed is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from exporters.export import ExportedGraph, export_graph
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig
from toolchain.delivery.deliver import stored_model
from toolchain.model.cache import CachedModel
from toolchain.model.catalog import LoadedModel
from toolchain.model.family import LanguageModel
from toolchain.search.plan import recipe_bytes


def export_uniform(
    model: LoadedModel, folder: Path, format_name: str, *, activations: str = "fp32", head: str | None = None,
    others: Mapping[str, str] | None = None,
) -> ExportedGraph:  # fmt: skip
    """Write the graph; layers by nearest rounding, for speed depends on shapes and formats alone.

    activations: fp32, or int8. head: another format for the layer that gives the logits. others: formats of layers by
    path, with inputs as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = model.tree.layers[-1].path
    recipe = {
        layer.path: LayerConfig(
            layer.exact
            if layer.exact and format_name != "fp32"
            else head
            if head and layer.path == last
            else format_name,
            "nearest",
            activations if format_name != "fp32" else "fp32",
        )
        for layer in model.tree.layers
    }
    recipe |= {path: LayerConfig(name, "nearest", "fp32") for path, name in (others or {}).items()}
    encoded = {path: compress(model.weight(path), config, None) for path, config in recipe.items()}
    module = stored_model(model, encoded, recipe)
    context = module.context if isinstance(module, CachedModel) else None
    return export_graph(
        module,
        cast(LanguageModel, module).state_specs(),
        folder,
        recipe_bytes(recipe, model.tree),
        context,
        head=model.tree.head or last,
    )
