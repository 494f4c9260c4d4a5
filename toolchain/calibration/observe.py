"""Hooks on the layers of a model while it reads a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading
from toolchain.quality.reference import stream_logits


class InputObserver(Protocol):
    """Accumulates a statistic of one layer's inputs."""

    def add(self, x: Tensor) -> None:
        """Update the statistic with the inputs [..., cols] of one forward pass."""
        ...


@contextmanager
def removed_at_end(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks when the block ends, also after an exception."""
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()


def observe_inputs(
    model: LoadedModel,
    ids: Reading,
    observers: Mapping[str, InputObserver],
    progress: StepProgress = lambda done, total: None,
) -> None:
    """Read a text with the fp32 model and pass the inputs of every observed layer to its observer.

    Args:
        ids: token ids int64 [n], or sentences.
        observers: by layer path.
        progress: called with the tokens read so far and the total.
    """
    with removed_at_end(_observed(model, path, observer) for path, observer in observers.items()):
        for start, _ in stream_logits(model.forward, ids):
            progress(start, len(ids))


def _observed(model: LoadedModel, path: str, observer: InputObserver) -> RemovableHandle:
    module = model.module.get_submodule(path)
    return module.register_forward_pre_hook(lambda _module, inputs: observer.add(inputs[0]))
