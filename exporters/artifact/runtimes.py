"""What runs an artifact: names as commands and documents spell them."""

from __future__ import annotations

from typing import Final

ONNXRUNTIME: Final = "onnxruntime"
"""ONNX Runtime with our compiled operators, where there are some for the machine."""
STOCK: Final = "stock"
"""Plain ONNX Runtime, which computes the operators' function bodies."""
SLMC_RUN: Final = "slmc-run"
"""The runtime of our own: one program, which needs nothing else on its machine."""

RUNTIMES: Final = (ONNXRUNTIME, STOCK, SLMC_RUN)
