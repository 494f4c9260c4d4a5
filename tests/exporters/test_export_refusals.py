"""What is written down of a graph by hand, and modules that cannot be exported."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import State
from exporters.export import export_graph, graph_io
from exporters.states import StateSpec
from toolchain.model.spikegpt import EXPONENT_START


def test_io_by_hand():
    cache = StateSpec("k", (2, 5), 0.0, "int8", in_place=True)
    io = graph_io([StateSpec("a", (3,)), StateSpec("b.c", (4,), EXPONENT_START), cache], 5)
    assert (io.tokens, io.logits, io.context, io.logits_from) == ("tokens", "logits", 5, None)
    assert graph_io([], head="lm_head").logits_from == "logits_from"
    assert io.states == (
        State("state.a", "next.a", (1, 3), "float32", 0.0),
        State("state.b.c", "next.b.c", (1, 4), "float32", -1e38),
        State("state.k", "next.k", (1, 2, 5), "int8", 0.0, in_place=True),
    )


class DataDependent(nn.Module):
    """Asks for the value of a token: no graph can."""

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        logits = torch.zeros(1, tokens.shape[1], 3)
        return (logits if tokens.sum().item() > 3 else logits + 1), state


class Silent(nn.Module):
    """Raises an error without a text."""

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        raise ValueError


@pytest.mark.parametrize(
    "module",
    [
        DataDependent(),
        Silent(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_module_that_cannot_be_traced(tmp_path, module):
    with pytest.raises(SlmcError, match="torch could not turn the model into a graph: ") as error:
        export_graph(module, [StateSpec("a", (2,))], tmp_path, 0)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
