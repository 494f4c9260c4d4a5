"""Layers compressed again, block by block, on what the compressed blocks before them give.

Calibration on the fp32 model does not know the errors of earlier layers. Once the recipe is chosen, every block is
calibrated on the compressed prefix, and its layers are compressed for those inputs (GPTQ, arXiv 2210.17323, section 4),
by coordinate descent where the recipe says gptq. What is better on a text that nothing was calibrated on is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
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

TOGETHER = 16
"""Pieces that a model without a context reads at once: its states go token by token, which costs as much for one piece
as for many."""

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
    pieces = ids[: len(ids) // piece * piece].view(-1, piece)
    held = max(1, round(HELD_OUT * len(pieces)))
    if not blocks or len(pieces) - held < 1:
        return None
    rows = TOGETHER if model.forward.context is None else 1
    train, judges = torch.split(pieces[:-held], rows), torch.split(pieces[-held:], rows)
    current = dict(encoded)
    quantized = QuantizedModel(model, lambda path, _: current[path])
    before = _loss(quantized.apply(recipe), judges)
    walk = _Walk(cast(nn.Module, quantized.apply(recipe)), blocks, list(train))
    if not walk.follows(blocks[0]):
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
    after = _loss(quantized.apply(recipe), judges)
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
    """The last block was reached."""


class _Walk:
    """Batches of pieces of a text on their way through the blocks of a module: what the next block reads of each.

    The first argument of a block, and the first part of what it returns, is the stream. Other arguments are taken from
    a reading of one batch of as many pieces: states are empty, and positions the same for all.
    """

    def __init__(self, module: nn.Module, blocks: list[str], batches: list[Tensor]) -> None:
        """batches: token ids int64 [pieces, tokens]; what does not follow is told by `follows`."""
        self.module = module
        sizes = {len(batch): batch for batch in reversed(batches)}
        read = {size: self._arguments(blocks, batch) for size, batch in sizes.items()}
        self.others = {(size, block): found[block][1:] for size, found in read.items() for block in found}
        self._second = None if len(blocks) == 1 else read[len(batches[0])][blocks[1]][0]
        self.streams = [self._arguments(blocks[:1], batch)[blocks[0]][0] for batch in batches]

    def _arguments(self, blocks: list[str], batch: Tensor) -> dict[str, tuple[Any, ...]]:
        """What each of these blocks is called with in one reading, which ends at the last of them."""
        found: dict[str, tuple[Any, ...]] = {}

        def keeper(block: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def keep(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
                found[block] = arguments
                if block == blocks[-1]:
                    raise _Reached

            return keep

        module = cast(LanguageModel, self.module)
        handles = [self.module.get_submodule(block).register_forward_pre_hook(keeper(block)) for block in blocks]
        with removed_at_end(handles), torch.inference_mode(), suppress(_Reached):
            module(batch, module.initial_state(len(batch)))
        return found

    def follows(self, block: str) -> bool:
        """Whether what the first block, given here, returns is what the second one reads."""
        if self._second is None:
            return True
        with torch.inference_mode():
            given = self.module.get_submodule(block)(self.streams[0], *self.others[len(self.streams[0]), block])
        is_stream = isinstance(given, tuple) and given[0].shape == self._second.shape
        return is_stream and torch.allclose(given[0], self._second)

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
        tokens = sum(x.shape[0] * x.shape[1] for x in self.streams)
        return {path: (total / tokens).clone() for path, total in sums.items()}

    def advance(self, block: str) -> None:
        """What the block now makes of the streams is what the next one reads."""
        self.streams = self._through(block)

    def _through(self, block: str) -> list[Tensor]:
        module = self.module.get_submodule(block)
        with torch.inference_mode():
            return [module(x, *self.others[len(x), block])[0] for x in self.streams]


def _loss(model: LanguageModel, batches: Iterable[Tensor]) -> float:
    """Mean loss over pieces [pieces, tokens] of batches, each from an empty state, nats per token."""
    losses: list[float] = []
    for batch in batches:
        with torch.inference_mode():
            logits, _ = model(batch[:, :-1], model.initial_state(len(batch)))
            found = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
            losses += found.view(len(batch), -1).mean(1).tolist()
    return sum(losses) / len(losses)
