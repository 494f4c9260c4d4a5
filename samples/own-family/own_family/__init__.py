"""A spiking transformer of one's own: trained with snnTorch, built by slmc."""

from own_family.family import OwnFamily

__all__ = ["OwnFamily"]
