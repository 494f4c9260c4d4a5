"""Layers compressed again, block by block, on what the compressed blocks before them give.

Calibration on the fp32 model does not know the errors of earlier layers. Once the recipe is chosen, every block is
calibrated on the compressed prefix, and its layers are compressed for those inputs (GPTQ, arXiv 2210.17323, section 4),
by coordinate descent where the recipe says gptq. What is better on a text that nothing was calibrated on is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.calibration.observe import removed_at_end
from toolchain.compress.catalog import compress, method_takes
from toolchain.compress.descent import Descent
from toolchain.compress.gptq import Gptq
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.family import LanguageModel

PIECE = 512
"""Tokens of a piece of the text, which is read from an empty state."""

HELD_OUT = 0.125
"""Share of the pieces, the last ones, that judge and are not calibrated on."""


@dataclass(frozen=True)
class Again:
    """A layer that is to be compressed for other inputs, whose second moment is the hessian [cols, cols]."""

    path: str
    config: LayerConfig
    hessian: Tensor


Compress = Callable[[Sequence[Again]], Sequence[Encoded]]
"""Compresses layers that do not depend on each other; the result is that of one after the other."""


@dataclass(frozen=True)
class Refined:
    """Every layer, refined if that is better. before, after: loss on the held-out pieces, nats per token."""

    encoded: Mapping[str, Encoded]
    before: float
    after: float

    @property
    def kept(self) -> bool:
        return self.after < self.before

    def text(self) -> str:
        """One line for the console."""
        verdict = "kept" if self.kept else "not kept"
        return f"refine: held-out loss {self.before:.4f} before, {self.after:.4f} after, {verdict}"


def refined(
    model: LoadedModel, recipe: Recipe, encoded: Mapping[str, Encoded], ids: Tensor,
    progress: StepProgress = lambda done, total: None, compress_all: Compress | None = None,
) -> Refined | None:  # fmt: skip
    """Compress every block's layers again; None where blocks are no chain, or the text is too short.

    Args:
        encoded: every layer as the recipe stores it.
        ids: token ids int64 [n] of the calibration text.
        compress_all: compresses the layers of a block, which do not depend on each other, side by side.
    """
    blocks = [block.path for block in model.tree.blocks if isinstance(_holder(model.module, block.path), nn.ModuleList)]
    piece = min(PIECE, model.forward.context or PIECE)
    pieces = list(ids[: len(ids) // piece * piece].view(-1, piece))
    held = max(1, round(HELD_OUT * len(pieces)))
    if not blocks or len(pieces) - held < 1:
        return None
    current = dict(encoded)
    quantized = QuantizedModel(model, lambda path, _: current[path])
    before = _loss(quantized.apply(recipe), pieces[-held:])
    walk = _Walk(cast(nn.Module, quantized.apply(recipe)), blocks, pieces[:-held])
    if not walk.follows(blocks, pieces[0]):
        return None
    for done, block in enumerate(blocks):
        paths = [x.path for x in model.tree.layers if x.kind == "linear" and x.path.startswith(f"{block}.")]
        hessians = walk.hessians(block, paths)
        wanted = [
            Again(path, config, hessians[path])
            for path in paths
            if (config := _better(recipe[path])).method in (Gptq.name, Descent.name)
        ]
        found = compress_all(wanted) if compress_all else [compressed_again(model, again) for again in wanted]
        for again, stored in zip(wanted, found, strict=True):
            current[again.path] = stored
            quantized.exchange(again.path, recipe[again.path])
        walk.advance(block)
        progress(done + 1, len(blocks))
    after = _loss(quantized.apply(recipe), pieces[-held:])
    return Refined(current if after < before else encoded, before, after)


def _better(config: LayerConfig) -> LayerConfig:
    """The config with descent in place of gptq, which it begins with."""
    fmt = format_named(config.format)
    descends = config.method == Gptq.name and method_takes(Descent.name, fmt.plain)
    return dataclasses.replace(config, method=Descent.name) if descends else config


def compressed_again(model: LoadedModel, again: Again) -> Encoded:
    """The layer compressed for other inputs."""
    fmt = format_named(again.config.format)
    plain = dataclasses.replace(again.config, format=fmt.plain.name)
    return fmt.from_plain(compress(model.weight(again.path), plain, again.hessian))


def _holder(module: nn.Module, path: str) -> nn.Module | None:
    parent, _, name = path.rpartition(".")
    return module.get_submodule(parent) if name.isdigit() else None


class _Reached(Exception):
    """A block was reached, with these arguments."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments


class _Walk:
    """The pieces of a text on their way through the blocks of a module: what the next block reads of each.

    The first argument of a block, and the first part of what it returns, is the stream. Other arguments are taken from
    a reading of one piece: states are empty, and positions the same for all.
    """

    def __init__(self, module: nn.Module, blocks: list[str], pieces: list[Tensor]) -> None:
        self.module = module
        self.streams = [self._arguments(blocks[0], piece)[0] for piece in pieces]
        self.others = {block: self._arguments(block, pieces[0])[1:] for block in blocks}

    def _arguments(self, block: str, piece: Tensor) -> tuple[Any, ...]:
        def stop(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            raise _Reached(arguments)

        module = cast(LanguageModel, self.module)
        with removed_at_end([self.module.get_submodule(block).register_forward_pre_hook(stop)]), torch.inference_mode():
            try:
                module(piece[None], module.initial_state(1))
            except _Reached as reached:
                return reached.arguments
        raise AssertionError(f"{block} was not reached")

    def follows(self, blocks: list[str], piece: Tensor) -> bool:
        """Whether what the first block returns is what the second one reads."""
        if len(blocks) == 1:
            return True
        with torch.inference_mode():
            given = self.module.get_submodule(blocks[0])(self.streams[0], *self.others[blocks[0]])
        wanted = self._arguments(blocks[1], piece)[0]
        return isinstance(given, tuple) and given[0].shape == wanted.shape and torch.allclose(given[0], wanted)

    def hessians(self, block: str, paths: list[str]) -> dict[str, Tensor]:
        """Mean of x x^T over what each layer of a block reads, float32 [cols, cols], by path."""
        sums: dict[str, Tensor] = {}

        def add(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
                x = arguments[0].reshape(-1, arguments[0].shape[-1])
                sums[path] = sums.get(path, 0) + x.T @ x

            return hook

        handles = [self.module.get_submodule(path).register_forward_pre_hook(add(path)) for path in paths]
        with removed_at_end(handles):
            self._through(block)
        tokens = sum(x.shape[1] for x in self.streams)
        return {path: (total / tokens).clone() for path, total in sums.items()}

    def advance(self, block: str) -> None:
        """What the block now makes of the streams is what the next one reads."""
        self.streams = self._through(block)

    def _through(self, block: str) -> list[Tensor]:
        module = self.module.get_submodule(block)
        with torch.inference_mode():
            return [module(x, *self.others[block])[0] for x in self.streams]


def _loss(model: LanguageModel, pieces: list[Tensor]) -> float:
    """Mean loss over pieces, each from an empty state, nats per token."""
    losses = []
    for piece in pieces:
        with torch.inference_mode():
            logits, _ = model(piece[None, :-1], model.initial_state(1))
            losses.append(float(torch.nn.functional.cross_entropy(logits[0], piece[1:])))
    return sum(losses) / len(losses)
