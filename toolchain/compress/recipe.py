"""What shall happen to every layer: a total map from layer path to format and method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """What happens to one layer."""

    format: str
    method: str


Recipe = dict[str, Choice]
"""Every layer path of a model to its choice."""
