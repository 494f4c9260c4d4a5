"""Documents to alter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a JSON document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, (dict, list)):
            yield from places(value)
