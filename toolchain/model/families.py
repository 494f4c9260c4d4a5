"""The model families."""

from __future__ import annotations

from toolchain.model.decoder_family import DECODERS
from toolchain.model.family import Family
from toolchain.model.rwkv4 import Rwkv4Family
from toolchain.model.spikegpt import SpikeGptFamily
from toolchain.model.spiking_bert import SpikingBertFamily

FAMILIES: tuple[Family, ...] = (
    SpikeGptFamily(),
    *DECODERS,
    Rwkv4Family(),
    SpikingBertFamily(),
)
