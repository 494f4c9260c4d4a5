"""The model families."""

from __future__ import annotations

from toolchain.model.family import Family
from toolchain.model.llama import LlamaFamily
from toolchain.model.opt import OptFamily
from toolchain.model.rwkv4 import Rwkv4Family
from toolchain.model.spikegpt import SpikeGptFamily
from toolchain.model.spiking_bert import SpikingBertFamily

FAMILIES: tuple[Family, ...] = (
    SpikeGptFamily(),
    LlamaFamily(),
    OptFamily(),
    Rwkv4Family(),
    SpikingBertFamily(),
)
