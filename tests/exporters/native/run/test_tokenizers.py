"""Tokenizers of our own runtime beside the tokenizers library: the same ids, and the same text from them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = Path(__file__).parents[4]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")


def mixed_text() -> str:
    """Prose, code, many scripts, emoji, odd white space, contractions, numbers."""
    draw = random.Random(1)
    prose = [path.read_text(encoding="utf-8")[:20_000] for path in sorted((ROOT / "toolchain" / "texts").glob("*.txt"))]
    code = (ROOT / "exporters" / "artifact" / "manifest.py").read_text(encoding="utf-8")
    blocks = [(0x20, 0x250), (0x370, 0x500), (0x5D0, 0x5EA), (0x900, 0x97F), (0x3040, 0x30FF), (0x4E00, 0x9000),
              (0xAC00, 0xD7A3), (0x1F300, 0x1F650), (0x2000, 0x2BFF), (0x300, 0x33F)]  # fmt: skip
    characters = "".join(chr(draw.randint(*draw.choice(blocks))) for _ in range(20_000))
    odd = "I'll YOU'RE he'S 123456 1,234.5 x² ½ Ⅷ ﬁ é e\u0301 \u00a0\u2003x\r\n\r\n  \n\t y   z İ 한국어 👩\u200d👧 "
    odd += ",\u061d7 \u07fd \ua7dcx "  # what Unicode has since calls punctuation, a mark and a capital
    odd = f"{odd}<|endoftext|> [UNK]\n" * 40
    return "\n".join([*prose, code, odd, characters])


def trained(kind: str) -> Tokenizer:
    text = mixed_text()
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[UNK]"])
    elif kind == "sentencepiece":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=120)
        tokenizer.train_from_iterator([text], trainer)
        return without_added(tokenizer)
    elif kind in ("unigram", "unigram-bytes"):
        return unigram(text, bytes_for_unknown=kind == "unigram-bytes")
    elif kind == "world":
        return world(text)
    elif kind == "characters":
        vocabulary = {"[UNK]": 0} | {c: i + 1 for i, c in enumerate(sorted(set(text[:60_000])))}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return tokenizer
    else:
        level, splits = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix"), pre_tokenizers.Split
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        before: dict[str, list[Any]] = {
            "digits": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
            "llama3": [splits(Regex(LLAMA3), "isolated"), plain],
            "qwen": [splits(Regex(QWEN), "isolated"), plain],
        }
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
        if kind in ("neox", "qwen"):
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(before[kind]) if kind in before else level
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def unigram(text: str, *, bytes_for_unknown: bool) -> Tokenizer:
    """As SentencePiece's: marks for spaces, scores, and with or without bytes for what is unknown."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([text[:20_000]], trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = []
    if bytes_for_unknown:
        document["model"]["byte_fallback"] = True
        document["model"]["vocab"] += [[f"<0x{i:02X}>", -12.0] for i in range(256)]
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        document["decoder"] = json.loads(decoders.Sequence(parts).__getstate__())
    return Tokenizer.from_str(json.dumps(document))


def world(text: str) -> Tokenizer:
    """RWKV's World vocabularies: of all byte strings, the longest that goes on; every byte is one."""
    draw, data = random.Random(3), text.encode()
    spelled = pre_tokenizers.ByteLevel.alphabet()
    table = dict(zip(sorted(_bytes_of(c)[0] for c in spelled), sorted(spelled, key=_bytes_of), strict=True))
    strings = {bytes([i]) for i in range(256)}
    for _ in range(1500):
        at = draw.randrange(len(data) - 12)
        strings.add(data[at : at + draw.randint(2, 12)])
    vocabulary = {"[UNK]": 0} | {"".join(table[b] for b in string): i + 1 for i, string in enumerate(sorted(strings))}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix="",
                             max_input_chars_per_word=2**31 - 1)  # fmt: skip
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def without_added(tokenizer: Tokenizer) -> Tokenizer:
    """Its special tokens as entries of the vocabulary alone, so that texts are not searched for them."""
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(document))


KINDS = (
    "gpt2", "prefix", "neox", "digits", "llama3", "qwen", "sentencepiece", "wordpiece", "unigram", "unigram-bytes",
    "world", "characters",
)  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return trained(request.param)


def test_the_same_ids_and_text(tokenizer: Tokenizer, driver: Any) -> None:
    text = mixed_text()
    if 'continuing_subword_prefix=""' in repr(tokenizer.model):
        text = text[::40]  # the library looks for the longest string of a whole text from its end
    for part in (text, "", " ", "a", "  two  spaces ", "\u0301 alone", "x" * 300, "\n", *text.split("\n")[::37]):
        expected = tokenizer.encode(part, add_special_tokens=False).ids
        ids, decoded = driver.tokens(tokenizer.to_str(), part.encode())
        assert ids == expected, part[:80]
        if "WordPiece" not in str(type(tokenizer.model)):
            assert decoded.decode() == tokenizer.decode(expected), part[:80]


def test_bytes_that_are_no_utf8(driver: Any) -> None:
    """Byte-level tokens spell them as they are."""
    data = b"ok \xff\xfe caf\xc3 \xf0\x9f\x98 end\xe2"
    tokenizer = trained("gpt2")
    ids, decoded = driver.tokens(tokenizer.to_str(), data)
    assert decoded.decode() == data.decode(errors="replace")
    spelled = b"".join(_bytes_of(tokenizer.id_to_token(i)) for i in ids)
    assert spelled == data


def _bytes_of(token: str) -> bytes:
    visible = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(b): b for b in visible}
    table |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in visible)}
    return bytes(table[c] for c in token)


@pytest.mark.parametrize("name", ["spikegpt-6m", "spikegpt-6m-sst2"])
def test_samples(name: str, driver: Any) -> None:
    path = ROOT / "samples" / name / "tokenizer.json"
    ids, _ = driver.tokens(path.read_text(encoding="utf-8"), mixed_text().encode())
    assert ids == Tokenizer.from_file(str(path)).encode(mixed_text(), add_special_tokens=False).ids


UNKNOWN = {
    "pre-tokenizer UnicodeScripts": {"pre_tokenizer": {"type": "UnicodeScripts"}},
    "normalizer NFKC": {"normalizer": {"type": "NFKC"}},
    "model Morphemes": {"model": {"type": "Morphemes", "vocab": {}}},
    "decoder CTC": {"decoder": {"type": "CTC"}},
    "post-processor RobertaProcessing": {"post_processor": {"type": "RobertaProcessing"}},
}


@pytest.mark.parametrize("words", UNKNOWN)
def test_what_it_does_not_know_is_named(words: str, driver: Any) -> None:
    document = json.loads((ROOT / "samples" / "spikegpt-6m" / "tokenizer.json").read_text(encoding="utf-8"))
    with pytest.raises(Exception, match=f"slmc-run does not know the {words}"):
        driver.tokens(json.dumps(document | UNKNOWN[words]), b"text")
