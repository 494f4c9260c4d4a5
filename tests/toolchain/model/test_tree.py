"""The hierarchy of a SpikeGPT, counted by hand."""

from __future__ import annotations

import torch

from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig, SpikeGptFamily
from toolchain.model.tree import Layer, ModelTree

LAYERS_OF_A_BLOCK = {
    "att.key": (4, 4),
    "att.value": (4, 4),
    "att.receptance": (4, 4),
    "att.output": (4, 4),
    "ffn.key": (12, 4),
    "ffn.receptance": (4, 4),
    "ffn.value": (4, 12),
}


def tree_of(layers: int, width: int, hidden: int, vocabulary: int, *, binarize: bool = True) -> ModelTree:
    with torch.device("meta"):
        model = SpikeGpt(SpikeGptConfig(layers, width, hidden, vocabulary, embed_binarize=binarize))
    return SpikeGptFamily().tree(model)


def test_layers_of_a_tiny_model() -> None:
    tree = tree_of(2, 4, 12, 9)
    expected = [Layer("emb", "embedding", 9, 4, exact="sign")]
    for i in range(2):
        expected += [Layer(f"blocks.{i}.{n}", "linear", *shape) for n, shape in LAYERS_OF_A_BLOCK.items()]
    expected.append(Layer("head", "linear", 9, 4))
    assert list(tree.layers) == expected
    assert [block.path for block in tree.blocks] == ["emb", "blocks.0", "blocks.1", "head"]
    assert [len(block.layers) for block in tree.blocks] == [1, 7, 7, 1]
    assert tree.family == "spikegpt"


def test_an_embedding_that_is_not_binarised_needs_more_than_signs() -> None:
    assert tree_of(1, 4, 12, 9, binarize=False).layers[0] == Layer("emb", "embedding", 9, 4, exact=None)


def test_counts_of_a_tiny_model_by_hand() -> None:
    tree = tree_of(2, 4, 12, 9)
    # Vectors of width 4: per block two norms of two (4), decay, first, three att mixes, two ffn mixes; ln0 and ln_out.
    assert tree.vector_params == 4 * (2 * (4 + 7) + 2 + 2) == 104
    # Two tables of 9 x 4; per block five 4 x 4 and two 12 x 4 matrices.
    assert tree.params == 104 + 2 * 36 + 2 * (5 * 16 + 2 * 48) == 528
    assert tree.state_values == 2 * 7 * 4 == 56
    assert tree.bytes_fp32 == 4 * (528 + 56) == 2336
    assert tree.fixed_bytes == 4 * (104 + 56) == 640
    assert tree.layers[0].params == 36
    assert tree.layers[0].bytes_fp32 == 144


def test_counts_of_the_released_216m_model() -> None:
    """Published: 215,399,424 parameters, of which a block has 7,676,160."""
    tree = tree_of(18, 768, 3072, 50277)
    assert tree.params == 215_399_424
    assert tree.params - tree_of(17, 768, 3072, 50277).params == 7_676_160
    assert 4 * tree.state_values == 387_072


def test_the_tree_counts_every_parameter_once() -> None:
    model = SpikeGpt(SpikeGptConfig(3, 8, 20, 13))
    assert SpikeGptFamily().tree(model).params == sum(p.numel() for p in model.parameters())


def test_every_layer_path_leads_to_a_weight_of_that_shape() -> None:
    model = SpikeGpt(SpikeGptConfig(2, 4, 12, 9))
    for layer in SpikeGptFamily().tree(model).layers:
        assert tuple(model.get_parameter(f"{layer.path}.weight").shape) == (layer.rows, layer.cols)
