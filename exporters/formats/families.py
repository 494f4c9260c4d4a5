"""The families of formats: what a search compares with each other, and what a report calls them."""

from __future__ import annotations

DENSE = "dense"
OWN_PATTERNS, SHARED_PATTERNS, DECOMPOSED, FLOAT4, CORRECTED = (
    "N:M", "N:M of 16 rows", "decomposed", "four-bit floats", "corrected",
)  # fmt: skip
SPARSE = (OWN_PATTERNS, SHARED_PATTERNS, DECOMPOSED, FLOAT4, CORRECTED)
"""The families that only linear layers may have, as a report lists them."""
