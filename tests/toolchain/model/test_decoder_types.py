"""Every row of the decoder's table beside Hugging Face's own class: the same logits, whatever its options say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_cases import CASES, VOCABULARY, config_of, saved
from decoders import random_tokens
from safetensors.torch import load_file, save_file

from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.decoder_options import BASE
from toolchain.model.decoder_types import TYPES

pytest.importorskip("transformers")

TOKENS = 100
EXACT = 1e-4
EACH = [(kind, number) for kind, cases in CASES.items() for number in range(len(cases))]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def model_folder(tmp_path: Path, write_tokenizer: Callable[[Path, int], Path]) -> Path:
    write_tokenizer(tmp_path / "tokenizer.json", VOCABULARY)
    return tmp_path


def difference(theirs: Any, ours: LoadedModel) -> float:
    ids = random_tokens(TOKENS, VOCABULARY)
    with torch.inference_mode():
        expected, (found, _) = theirs(ids).logits, ours.forward(ids, ours.forward.initial_state())
    assert expected.std() > 0.3, "logits that say nothing prove nothing"
    return float((expected - found).abs().max())


def test_every_row_has_three_cases_that_set_all_its_options() -> None:
    """What a row takes over from Llama's options as it is, Llama's cases set."""
    assert CASES.keys() == TYPES.keys()
    for kind, row in TYPES.items():
        said = [row.options.values(config_of(kind, case), {}) for case in CASES[kind]]
        plain = row.options.values({"num_attention_heads": 8, "n_head": 8}, {})
        assert len(said) >= 3
        for name, option in row.options.read.items():
            if option.places and (kind == "llama" or option != BASE.get(name)) and name not in UNSET:
                assert any(values[name] != plain[name] for values in said), f"{kind}: no case sets {name}"


UNSET = {"mscale", "mscale_all_dim", "truncate", "beta_fast", "beta_slow", "attention_factor", "tied", "rotated_share"}
"""Options of yarn, which have cases in test_published_configs; tied, which every case here is in turn; a share that
Llama does not have."""


@pytest.mark.parametrize(("kind", "number"), EACH)
def test_logits_are_those_of_transformers(model_folder: Path, kind: str, number: int) -> None:
    """Of three cases of a type the first is untied in one file, the second tied, the third in shards of bfloat16."""
    config = config_of(kind, CASES[kind][number]) | {"tie_word_embeddings": number % 2 == 1}
    how = ("bfloat16", "CausalLM", "12KB") if number == 2 else ("float32",)
    theirs, ours = saved(config, model_folder, *how), load_model(model_folder)
    assert (len(list(model_folder.glob("*.safetensors"))) > 2) == (number == 2)
    assert difference(theirs, ours) < EXACT
    assert ours.notes == ()
    assert (ours.tree.layers[-1].table is not None) == (number % 2 == 1)


@pytest.mark.parametrize("kind", CASES)
def test_one_call_and_pieces_agree_and_matrices_may_stay_on_disk(model_folder: Path, kind: str) -> None:
    saved(config_of(kind, CASES[kind][0]), model_folder)
    model, streamed = load_model(model_folder), load_model(model_folder, room=1)
    assert streamed.weight_storage == "disk"
    ids = random_tokens(60, VOCABULARY)
    with torch.inference_mode():
        whole, _ = model.forward(ids, model.forward.initial_state())
        for read in (model, streamed):
            state, parts = read.forward.initial_state(), []
            for piece in ids.split([7, 1, 30, 22], 1):
                logits, state = read.forward(piece, state)
                parts.append(logits)
            torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(CASES.keys() - {"granite"}))
def test_classifiers_score_as_those_of_transformers(model_folder: Path, kind: str) -> None:
    """Granite has none there."""
    config = config_of(kind, CASES[kind][-1]) | {"id2label": {"0": "no", "1": "yes", "2": "perhaps"}}
    theirs = saved(config, model_folder, head="SequenceClassification")
    ours = load_model(model_folder)
    assert ours.classes is not None
    assert (ours.classes.labels, ours.classes.pooling) == (("no", "yes", "perhaps"), "last")
    ids = 1 + random_tokens(23, VOCABULARY - 1)  # token 0 is what theirs pads with
    with torch.inference_mode():
        expected, (scores, _) = theirs(ids).logits, ours.forward(ids, ours.forward.initial_state())
    assert expected.std() > 0.1
    assert (expected - scores[0]).abs().max() < EXACT
    buffers = sum(b.numel() for b in ours.module.buffers())
    assert ours.tree.params - buffers == sum(p.numel() for p in theirs.parameters())
    tensors = load_file(model_folder / "model.safetensors")
    save_file({n.replace("score.", "classifier."): t for n, t in tensors.items()}, model_folder / "model.safetensors")
    again = load_model(model_folder)
    assert torch.equal(again.forward(ids, again.forward.initial_state())[0], scores)
