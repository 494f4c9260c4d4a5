"""Whether a model's matrices are widened in memory or stay on disk: decided by its size and by the room there is."""

from __future__ import annotations

from typing import Literal

from targets.device.quantities import bytes_text
from toolchain.model.tree import ModelTree

WeightStorage = Literal["memory", "disk"]

OVERHEAD_BYTES = 2**29
"""Python, torch and the compressed layers that are kept."""

WORKING_COPIES = 6
"""Matrices of the largest layer that compressing or judging it holds at once: weight, error, products, codes."""


def hessian_bytes(tree: ModelTree) -> int:
    """Bytes of the Hessians of all linear layers."""
    return sum(4 * layer.cols**2 for layer in tree.layers if layer.kind == "linear")


def bytes_in_memory(tree: ModelTree) -> int:
    """Estimate of what a build takes that holds the model, its compressed twin and all Hessians; without logits."""
    return 2 * tree.bytes_fp32 + hessian_bytes(tree) + OVERHEAD_BYTES


def bytes_from_disk(tree: ModelTree, stored: int) -> int:
    """Estimate of the same where matrices and Hessians stay on disk; stored: bytes of the compressed model."""
    layer = max(4 * max(layer.params, layer.cols**2) for layer in tree.layers)
    return WORKING_COPIES * layer + 3 * stored + 4 * tree.fixed_bytes + OVERHEAD_BYTES


def staying_on_disk(tree: ModelTree) -> str:
    """What is said to a user whose model stays on disk."""
    return (
        f"matrices stay on disk and are widened one at a time: a build in memory takes about "
        f"{bytes_text(bytes_in_memory(tree))}, for which there is no room; the result is the same, --effort quick "
        "and short texts keep the time in bounds"
    )


def weight_storage(tree: ModelTree, room: int | None) -> WeightStorage:
    """Where matrices are. Both ways give the same result; that from disk reads and widens them for every product.

    room: bytes that the work may take, None for any amount.
    """
    return "memory" if room is None or bytes_in_memory(tree) <= room else "disk"
