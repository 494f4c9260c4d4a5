"""The quantized model in torch: a copy of the fp32 model whose layers are replaced according to a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.ops.activations import rounded_activations
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.cache import KeyValueModel
from toolchain.model.catalog import LoadedModel
from toolchain.model.family import LanguageModel
from toolchain.model.offloaded import Offloaded, Read
from toolchain.model.sharing import sharing_copy


class QuantizedModel:
    """A model that shares all tensors with the original, except those of the layers in its current recipe.

    The layers of a model that stays on disk are decoded again for every product.
    """

    def __init__(self, model: LoadedModel, encoded: Callable[[str, LayerConfig], Encoded]) -> None:
        """encoded: compresses the layer of a path."""
        self.module = sharing_copy(model.module)
        if isinstance(self.module, KeyValueModel):
            self.module.kv_cache = model.kv_cache
        self._inputs = {layer.path: layer.cols for layer in model.tree.layers}
        self._tables = {layer.path: layer.table for layer in model.tree.layers if layer.table}
        self._original = model
        self._encoded = encoded
        self._now: dict[str, LayerConfig] = {}
        self._hooks: dict[str, RemovableHandle] = {}

    def apply(self, recipe: Recipe) -> LanguageModel:
        """The model with exactly these layers compressed and all others as in the original.

        The same module is changed and returned by every call.
        """
        for path in self._now.keys() - recipe.keys():
            self._restore(path)
            self._keep_inputs(path)
            del self._now[path]
        for path, config in recipe.items():
            if self._now.get(path) != config:
                self._exchange(path, config)
                self._quantize_inputs(path, config)
                self._now[path] = config
        return cast(LanguageModel, self.module)

    def exchange(self, path: str, config: LayerConfig) -> None:
        """Give a layer of the current recipe its weights anew: what compresses it has changed."""
        self._exchange(path, config)

    def _exchange(self, path: str, config: LayerConfig) -> None:
        if isinstance(self.module.get_submodule(path), Offloaded):
            self._read(path, lambda: self._decoded(path, config))
        else:
            self._set(path, nn.Parameter(self._decoded(path, config), requires_grad=False))

    def _restore(self, path: str) -> None:
        original = self._original.module.get_submodule(path)
        if isinstance(original, Offloaded):
            self._read(path, original.read)
        else:
            self._set(path, self._original.module.get_parameter(f"{path}.weight"))

    def _decoded(self, path: str, config: LayerConfig) -> Tensor:
        encoded = self._encoded(path, config)
        return torch.from_numpy(format_named(encoded.format).decode(encoded))

    def _quantize_inputs(self, path: str, config: LayerConfig) -> None:
        self._keep_inputs(path)
        group = format_named(config.format).input_group(self._inputs[path])
        if config.activations == "int8" and group is not None:
            self._hooks[path] = self.module.get_submodule(path).register_forward_pre_hook(
                lambda _module, arguments: (rounded_activations(arguments[0], group),)
            )

    def _keep_inputs(self, path: str) -> None:
        if path in self._hooks:
            self._hooks.pop(path).remove()

    def _read(self, path: str, read: Read) -> None:
        for holder in filter(None, (path, self._tables.get(path))):
            module = self.module.get_submodule(holder)
            assert isinstance(module, Offloaded)
            module.read = read

    def _set(self, path: str, weight: nn.Parameter) -> None:
        self.module.get_submodule(path).weight = weight
        if path in self._tables:
            self.module.get_submodule(self._tables[path]).weight = weight
