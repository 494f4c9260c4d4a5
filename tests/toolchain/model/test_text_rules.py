"""Begin and end tokens and stop strings, from every place where a model says them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from exporters.artifact.errors import SlmcError
from exporters.artifact.text_rules import TextRules
from toolchain.model.text import read_text
from toolchain.model.text_rules import begin_tokens, begin_with, text_files, text_rules

WORDS = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", "a", "b", "c"])}
VOCABULARY = len(WORDS)


def tokenizer(single: str | None = None) -> Tokenizer:
    made = Tokenizer(WordLevel(WORDS, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>", "<pad>"])
    if single is not None:
        made.post_processor = TemplateProcessing(single=single, pair=None, special_tokens=[("<s>", 1), ("</s>", 2)])
    return made


BEGINNINGS = {
    "nothing": (None, ()),
    "a begin token": ("<s> $A", (1,)),
    "both": ("<s> $A </s>", (1,)),
    "an end token alone": ("$A </s>", ()),
    "the end token before the text, as OPT": ("</s> $A", (2,)),
    "two before": ("<s> </s> $A", (1, 2)),
}


@pytest.mark.parametrize("case", BEGINNINGS)
def test_what_stands_before_a_text_begins_it_and_what_stands_behind_does_not(case: str) -> None:
    single, begin = BEGINNINGS[case]
    made = tokenizer(single)
    assert begin_tokens(made) == begin
    begin_with(made, begin)
    assert made.encode("a b").ids == [*begin, 4, 5]
    assert made.encode("").ids == list(begin)
    assert made.encode("a b", add_special_tokens=False).ids == [4, 5]


def test_an_unknown_word_may_be_the_begin_token() -> None:
    """Only words that are not unknown tell where the tokens stand."""
    made = tokenizer()
    made.post_processor = TemplateProcessing(single="<unk> $A", pair=None, special_tokens=[("<unk>", 0)])
    assert begin_tokens(made) == (0,)


def folder_with(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def rules(folder: Path, single: str | None = None, *, bare: bool = False) -> TextRules:
    return text_rules(text_files(None if bare else folder, folder), tokenizer(single), VOCABULARY)


ENDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "nobody says": ({}, ()),
    "config.json": ({"config": {"eos_token_id": 2}}, (2,)),
    "a list": ({"config": {"eos_token_id": [3, 2]}}, (3, 2)),
    "generation_config.json first": (
        {"config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": [3, 2]}}, (3, 2)
    ),
    "tokenizer_config.json": ({"tokenizer_config": {"eos_token": "</s>"}}, (2,)),
    "as an object": ({"tokenizer_config": {"eos_token": {"content": "<pad>", "lstrip": False}}}, (3,)),
    "all three": (
        {
            "config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": 5},
            "tokenizer_config": {"eos_token": "c"},
        },
        (5, 2, 6),
    ),
    "null": ({"config": {"eos_token_id": None}, "tokenizer_config": {"eos_token": None}}, ()),
    "none that can be written": (
        {"config": {"eos_token_id": [-1, 7]}, "tokenizer_config": {"eos_token": "<|nowhere|>"}}, ()
    ),
    "the first token": ({"config": {"eos_token_id": 0}}, (0,)),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_what_ends_a_text(case: str, tmp_path: Path) -> None:
    files, end = ENDS[case]
    assert rules(folder_with(tmp_path, **files)).end == end


def test_a_bare_checkpoint_has_what_lies_beside_its_tokenizer(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config={"eos_token_id": 5}, tokenizer_config={"eos_token": "</s>"})
    assert rules(folder, bare=True).end == (2,)


BEGINS: dict[str, tuple[dict[str, Any], str | None, tuple[int, ...]]] = {
    "the tokenizer's own": ({"bos_token": "<s>"}, "<s> $A", (1,)),
    "said beside a tokenizer that does not": ({"bos_token": "<s>", "add_bos_token": True}, None, (1,)),
    "taken back": ({"bos_token": "<s>", "add_bos_token": False}, "<s> $A", ()),
    "no such token": ({"add_bos_token": True}, None, ()),
    "an end token asked for": ({"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": True}, "<s> $A </s>", (1,)),
}


@pytest.mark.parametrize("case", BEGINS)
def test_what_begins_a_text(case: str, tmp_path: Path) -> None:
    said, single, begin = BEGINS[case]
    assert rules(folder_with(tmp_path, tokenizer_config=said), single).begin == begin


STARTS: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "the begin token": ({"config": {"bos_token_id": 3}}, "<s> $A", 1),
    "the one that is not put before texts": ({"config": {"bos_token_id": 3, "eos_token_id": 2}}, None, 3),
    "what separates texts": ({"config": {"eos_token_id": 2}}, None, 2),
    "the first of all": ({}, None, 0),
}


@pytest.mark.parametrize("case", STARTS)
def test_what_an_empty_text_starts_from(case: str, tmp_path: Path) -> None:
    files, single, start = STARTS[case]
    assert rules(folder_with(tmp_path, **files), single).start == start


@pytest.mark.parametrize(("value", "stop"), [("END", ("END",)), (["\n\n", "END"], ("\n\n", "END")), (None, ())])
def test_stop_strings(tmp_path: Path, value: Any, stop: tuple[str, ...]) -> None:
    assert rules(folder_with(tmp_path, generation_config={"stop_strings": value})).stop == stop


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a word": ({"config": {"eos_token_id": "</s>"}}, r"config\.json: eos_token_id is '</s>'; the number of a token"),
    "true": ({"config": {"eos_token_id": True}}, "eos_token_id is True"),
    "a fraction": (
        {"generation_config": {"eos_token_id": [2, 2.5]}},
        r"generation_config\.json: eos_token_id is \[2, 2",
    ),
    "a word for a flag": ({"tokenizer_config": {"add_bos_token": "yes"}}, "add_bos_token is 'yes'; true or false"),
    "an empty stop string": ({"generation_config": {"stop_strings": [""]}}, r"stop_strings is \[''\]; a string is"),
    "a number for a stop string": ({"generation_config": {"stop_strings": 3}}, "stop_strings is 3"),
    "a list for a file": ({"generation_config": [1]}, "expected an object, found list"),
    "a number for a template": ({"tokenizer_config": {"chat_template": 3}}, "chat_template is a int; a Jinja template"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_say_something_else(case: str, tmp_path: Path) -> None:
    files, words = WRONG[case]
    with pytest.raises(SlmcError, match=words):
        rules(folder_with(tmp_path, **files))


def test_a_file_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{eos")
    with pytest.raises(SlmcError, match=r"generation_config\.json: not JSON"):
        rules(tmp_path)


TEMPLATES: dict[str, tuple[Any, str | None, str | None]] = {
    "none": (None, None, None),
    "in tokenizer_config.json": ("T1", None, "T1"),
    "one of several": ([{"name": "tool", "template": "T2"}, {"name": "default", "template": "T1"}], None, "T1"),
    "several without a default": ([{"name": "tool", "template": "T2"}], None, None),
    "a file of its own first": ("T1", "T3", "T3"),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_where_a_chat_template_lies(case: str, tmp_path: Path) -> None:
    said, file, wanted = TEMPLATES[case]
    folder_with(tmp_path, tokenizer_config={} if said is None else {"chat_template": said})
    if file is not None:
        (tmp_path / "chat_template.jinja").write_text(file)
    chat = rules(tmp_path).chat
    assert (chat and chat.template) == wanted


@pytest.mark.parametrize(
    ("begin", "context", "ids"),
    [((), 3, [4] * 130), ((1,), None, [1] + [4] * 130), ((1,), 3, [1, 4, 4] * 65), ((1, 2), 4, [1, 2, 4, 4] * 65)],
)
def test_every_piece_begins_as_the_model_was_trained_to(
    tmp_path: Path, begin: tuple[int, ...], context: int | None, ids: list[int]
) -> None:
    (tmp_path / "text.txt").write_text("a " * 130)
    made = begin_with(tokenizer("$A </s>"), begin)
    assert read_text(tmp_path / "text.txt", made, context).ids.tolist() == ids
