"""What a model writes, against its own forward pass: the best tokens, the share of drawn ones, beginnings and seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from decoders import family, llama_config
from tokenizers import Tokenizer, models, processors
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.decoder import Decoder
from toolchain.model.self_generated import continued, written

CONFIG = llama_config(layers=2, width=16, hidden=24, vocabulary=11, heads=4, groups=2, head_size=4, context=80)


def llama() -> Decoder:
    torch.manual_seed(4)
    model = Decoder(CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.requires_grad_(False), 0, 0.4)
    return model


def tokenizer(begins: bool) -> Tokenizer:
    made = Tokenizer(models.WordLevel({"<s>": 0, **{f"w{i}": i for i in range(1, 11)}}, "w1"))
    if begins:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


def loaded(begins: bool) -> LoadedModel:
    model = llama()
    return LoadedModel(model, family("llama").tree(model), tokenizer(begins), b"", Path("none"), "llama", "0" * 64)


def test_at_temperature_0_every_token_is_the_best_after_those_before() -> None:
    """Beyond one growth of the cache, against the whole text at once."""
    model = llama()
    first = torch.tensor([[1, 2], [3, 4], [5, 5]])
    ids = continued(model, first, 70, 0.0, torch.Generator())
    assert ids.shape == (3, 70) and torch.equal(ids[:, :2], first)
    logits: Tensor = model(ids, model.initial_state(3))[0]
    assert torch.equal(ids[:, 2:], logits[:, 1:-1].argmax(-1))


def test_tokens_are_drawn_as_often_as_the_model_says() -> None:
    """The second token of 4000 texts; the standard error of a share is 0.008 at most."""
    model, first = llama(), torch.full((4000, 1), 7)
    ids = continued(model, first, 2, 1.5, torch.Generator().manual_seed(0))
    wanted = torch.softmax(model(first[:1], model.initial_state(1))[0][0, 0] / 1.5, -1)
    shares = torch.bincount(ids[:, 1], minlength=11) / 4000
    assert torch.allclose(shares, wanted, atol=0.035)


def test_rows_beyond_the_vocabulary_are_never_drawn() -> None:
    model, first = llama(), torch.full((2000, 1), 7)
    for temperature in (0.0, 9.0):
        ids = continued(model, first, 3, temperature, torch.Generator().manual_seed(0), vocabulary=4)
        assert int(ids[:, 1:].max()) == 3 if temperature else int(ids[:, 1:].max()) < 4


def test_texts_are_separated_by_what_begins_them() -> None:
    text = written(loaded(begins=True), 200, 1.0, 5)
    assert "<s>" in text and "<s><s>" not in text and not text.startswith("<s>")
    assert set(text.replace("<s>", " ").split()) <= {f"w{i}" for i in range(1, 11)}


def test_the_seed_decides() -> None:
    model = loaded(begins=True)
    assert written(model, 100, 1.0, 1) == written(model, 100, 1.0, 1) != written(model, 100, 1.0, 2)


def test_a_model_whose_texts_begin_anywhere(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    done: list[tuple[int, int]] = []
    text = written(model, 600, 0.8, 0, lambda now, total: done.append((now, total)))
    lines = text.strip().split("\n")
    assert len(lines) >= 2 and done[-1] == (2 * 511, 1024)


def test_one_text_over_and_over_is_refused() -> None:
    with pytest.raises(SlmcError, match="every text would be the same one; give --opening 8"):
        written(loaded(begins=True), 100, 0.0, 0)


def test_openings_are_drawn_and_the_best_tokens_follow() -> None:
    """Three tokens are drawn after <s>; the rest of the row is what the model likes best after all before."""
    model, openings, length = loaded(begins=True), set(), CONFIG.context
    for seed in range(8):
        row = [0]
        for part in written(model, length, 0.0, seed, opening=3).strip().split("<s>"):
            row += [*(int(word[1:]) for word in part.split()), 0]
        ids = torch.tensor([row[:-1]])
        if ids.shape[1] < length:
            continue  # <s> was drawn twice in a row, which the text does not show
        logits: Tensor = model.forward(ids, model.forward.initial_state(1))[0]
        assert torch.equal(ids[0, 4:], logits[0, 3:-1].argmax(-1))
        openings.add(tuple(row[1:4]))
    assert len(openings) > 1
