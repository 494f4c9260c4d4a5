"""Original English prose that comes with slmc, for users who give no text of their own."""

from pathlib import Path

SHIPPED_TEXTS = Path(__file__).parents[1] / "texts"
