"""How a model's texts begin and end, from the files that come with it, and its tokenizer made to begin them so."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from exporters.artifact.opening import read_json, read_text
from exporters.artifact.text_rules import TextRules
from toolchain.model.chat import Template, chat_rules
from toolchain.model.tokenizer import read_tokenizer

CONFIG, GENERATION, TOKENIZER, TEMPLATE = (
    "config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
_PROBES = ("a", "0", "the", "\n")
_ADVICE = "mend it, or copy the model again"


@dataclass(frozen=True)
class TextFiles:
    """config.json, generation_config.json and tokenizer_config.json as they were read, empty where there is none, and
    the chat template."""

    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    template: str | None


def text_files(folder: Path | None, beside: Path) -> TextFiles:
    """What lies in a model's folder, and beside its tokenizer.

    Args:
        folder: of config.json and generation_config.json; None for a bare checkpoint.

    Raises:
        SlmcError: a file is not JSON, or no object.
    """
    config, generation = (_document(folder / name) if folder else {} for name in (CONFIG, GENERATION))
    own = _document(beside / TOKENIZER)
    return TextFiles(config, generation, own, _template(beside, own))


def text_rules(files: TextFiles, tokenizer: Tokenizer, vocabulary: int) -> TextRules:
    """The rules of a model.

    Begin tokens are those that the tokenizer puts before a text, unless tokenizer_config.json says add_bos_token
    itself. A text is ended by the eos_token_id of generation_config.json and config.json, and by the eos_token of
    tokenizer_config.json. Numbers of tokens that the vocabulary does not have can never be written and are left out.

    Raises:
        SlmcError: a value is not what its name says.
    """
    both, own = ((GENERATION, files.generation), (CONFIG, files.config)), files.tokenizer
    special = {key: text for key in own if key.endswith("_token") and (text := _content(own[key])) is not None}
    end = [token for name, document in both for token in _ids(document, "eos_token_id", name)]
    end += _named(tokenizer, special, "eos_token")
    end = [token for token in dict.fromkeys(end) if 0 <= token < vocabulary]
    begin = _begin(own, special, tokenizer)
    first = [token for name, document in both for token in _ids(document, "bos_token_id", name)]
    start = next((t for t in (*begin, *first, *end) if 0 <= t < vocabulary), 0)
    chat = None if files.template is None else chat_rules(Template(files.template, special), tokenizer)
    return TextRules(begin, tuple(end), _strings(files.generation), start, chat)


def begin_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that a tokenizer puts before a text; not what it puts behind.

    Raises:
        SlmcError: it changes the text's own tokens, so that nobody can say.
    """
    added = tokenizer.encode("").ids
    if not added:
        return ()
    for probe in (*_PROBES, *itertools.islice(tokenizer.get_vocab(with_added_tokens=False), len(_PROBES))):
        plain = tokenizer.encode(probe, add_special_tokens=False).ids
        whole = tokenizer.encode(probe).ids
        places = [at for at in range(len(added) + 1) if whole[at : at + len(plain)] == plain]
        if plain and len(places) == 1:
            return tuple(whole[: places[0]])
    raise SlmcError(
        f"the tokenizer adds the tokens {added} to a text, and nobody can say whether before or behind it; set "
        f"add_bos_token in {TOKENIZER}"
    )


def artifact_tokenizer(artifact: Path, manifest: Manifest, vocabulary: int) -> Tokenizer:
    """An artifact's tokenizer, which begins texts as the model was trained to.

    Raises:
        SlmcError: as `read_tokenizer`.
    """
    tokenizer = read_tokenizer(artifact / "tokenizer.json", vocabulary).tokenizer
    if manifest.io.classes:
        return tokenizer
    return begin_with(tokenizer, manifest.text.begin if manifest.text else begin_tokens(tokenizer))


def begin_with(tokenizer: Tokenizer, begin: Sequence[int]) -> Tokenizer:
    """The same tokenizer, which now puts these tokens before a text, and nothing behind."""
    names = [f"[{number}]" for number in range(len(begin))]
    special = list(zip(names, begin, strict=True))
    tokenizer.post_processor = TemplateProcessing(
        single=[*names, "$A"], pair=[*names, "$A", "$B"], special_tokens=special
    )
    return tokenizer


def _begin(own: Mapping[str, Any], special: Mapping[str, str], tokenizer: Tokenizer) -> tuple[int, ...]:
    stated = own.get("add_bos_token")
    if stated is None:
        return begin_tokens(tokenizer)
    if not isinstance(stated, bool):
        raise SlmcError(f"{TOKENIZER}: add_bos_token is {stated!r}; true or false is needed")
    return tuple(_named(tokenizer, special, "bos_token")[:1]) if stated else ()


def _named(tokenizer: Tokenizer, special: Mapping[str, str], key: str) -> list[int]:
    token = tokenizer.token_to_id(special[key]) if key in special else None
    return [] if token is None else [token]


def _ids(document: Mapping[str, Any], key: str, name: str) -> list[int]:
    """A token id, several, or none."""
    value = document.get(key)
    some = [] if value is None else value if isinstance(value, list) else [value]
    for token in some:
        if isinstance(token, bool) or not isinstance(token, int):
            raise SlmcError(f"{name}: {key} is {value!r}; the number of a token is needed, or a list of such")
    return some


def _strings(generation: Mapping[str, Any]) -> tuple[str, ...]:
    value = generation.get("stop_strings")
    some = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) and text for text in some):
        raise SlmcError(f"{GENERATION}: stop_strings is {value!r}; a string is needed, or a list of such, none empty")
    return tuple(some)


def _content(token: Any) -> str | None:
    """A special token's text, which is written as it is or inside an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _template(folder: Path, own: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own first, of several the one called 'default'."""
    path = folder / TEMPLATE
    if path.is_file():
        return read_text(path, _ADVICE)
    value = own.get("chat_template")
    if isinstance(value, list):
        named = {t.get("name"): t.get("template") for t in value if isinstance(t, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise SlmcError(f"{folder / TOKENIZER}: chat_template is a {type(value).__name__}; a Jinja template is needed")
    return value


def _document(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    document = read_json(path, _ADVICE)
    if not isinstance(document, dict):
        raise SlmcError(f"{path}: expected an object, found {type(document).__name__}")
    return document
