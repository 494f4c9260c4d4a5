"""The model as it is trained: plain torch and snnTorch, token by token. slmc knows nothing of this file."""

from __future__ import annotations

import snntorch
import torch
from torch import Tensor, nn

BETA, THRESHOLD = 0.8, 1.0
KEPT = 0.97
"""What the attention's matrix keeps from token to token."""


def neuron(reset: str) -> snntorch.Leaky:
    """A leaky integrate-and-fire neuron; reset: 'subtract' (soft) or 'zero' (hard)."""
    return snntorch.Leaky(beta=BETA, threshold=THRESHOLD, reset_mechanism=reset)


class Block(nn.Module):
    """Linear attention of spikes, then an MLP whose hidden values are spikes."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.lif_query, self.lif_key, self.lif_value = (neuron("subtract") for _ in range(3))
        self.lif_mixed, self.out = neuron("zero"), nn.Linear(size, size, bias=False)
        self.up, self.lif_up, self.down = nn.Linear(size, hidden), neuron("subtract"), nn.Linear(hidden, size)


class SpikingTransformer(nn.Module):
    """Tokens [batch, time] to logits [batch, time, vocabulary]."""

    def __init__(self, vocabulary: int, size: int = 96, hidden: int = 192, layers: int = 2) -> None:
        super().__init__()
        self.size = size
        self.embed = nn.Embedding(vocabulary, size)
        self.blocks = nn.ModuleList(Block(size, hidden) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            y = block.norm1(x)
            q, k, v = (spikes(lif, linear(y)) for lif, linear in (
                (block.lif_query, block.query), (block.lif_key, block.key), (block.lif_value, block.value)
            ))  # fmt: skip
            x = x + block.out(spikes(block.lif_mixed, attention(q, k, v) / self.size**0.5))
            x = x + block.down(spikes(block.lif_up, block.up(block.norm2(x))))
        return self.head(self.norm(x))


def spikes(lif: snntorch.Leaky, current: Tensor) -> Tensor:
    """current [batch, time, size] to spikes, membranes carried from token to token."""
    membrane, out = torch.zeros_like(current[:, 0]), []
    for t in range(current.shape[1]):
        spike, membrane = lif(current[:, t], membrane)
        out.append(spike)
    return torch.stack(out, 1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """y[t] = sum over s <= t of KEPT^(t - s) (k[s] q[t]) v[s]."""
    age = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])
    kept = torch.where(age >= 0, KEPT ** age.clamp_min(0).float(), 0.0)
    return (q @ k.mT * kept) @ v
