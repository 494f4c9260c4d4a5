"""Writes unicode_tables.h: python make_unicode.py > unicode_tables.h

Compositions are Python's Unicode data. What is a letter, a number, a word's character, a mark, punctuation, a control
character or a small letter is asked of the tokenizers library itself: its parts are of several versions of Unicode.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable
from importlib.metadata import version

from tokenizers import Regex, normalizers, pre_tokenizers

LAST = 0x110000
WHITE_SPACE = (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
"""The property White_Space (PropList.txt), which str.isspace does not give: that one knows separators by direction."""


def ranges(belongs: Callable[[int], bool]) -> Iterable[int]:
    """First and last of every run of code points that belong, one behind the other."""
    begin = -1
    for code in range(LAST + 1):
        inside = code < LAST and belongs(code)
        if inside and begin < 0:
            begin = code
        elif not inside and begin >= 0:
            yield from (begin, code - 1)
            begin = -1


def matched(pattern: str) -> Callable[[int], bool]:
    """What the library's regular expressions match."""
    splits = pre_tokenizers.Split(Regex(pattern), "removed")
    return lambda code: not surrogate(code) and len(splits.pre_tokenize_str(f"\0{chr(code)}\0")) == 2


def dropped(**what: bool) -> Callable[[int], bool]:
    """What a BERT normalizer that does this alone takes out of a text."""
    nothing = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    normalizer = normalizers.BertNormalizer(**(nothing | what))
    return lambda code: not surrogate(code) and normalizer.normalize_str(f"a{chr(code)}a") == "aa"


def punctuation() -> Callable[[int], bool]:
    splits = pre_tokenizers.Punctuation("isolated")
    return lambda code: not surrogate(code) and len(splits.pre_tokenize_str(f"a{chr(code)}a")) == 3


def words() -> Callable[[int], bool]:
    splits = pre_tokenizers.Whitespace()
    return lambda code: not surrogate(code) and len(splits.pre_tokenize_str(f"a{chr(code)}a")) == 1


def surrogate(code: int) -> bool:
    return 0xD800 <= code <= 0xDFFF


def decompositions() -> Iterable[int]:
    """Code point, then both parts of its canonical decomposition (0 for the second where there is one)."""
    for code in range(LAST):
        found = unicodedata.decomposition(chr(code))
        if found and not found.startswith("<"):
            parts = [int(part, 16) for part in found.split()]
            yield from (code, parts[0], parts[1] if len(parts) > 1 else 0)


def excluded() -> Iterable[int]:
    """Code points with a decomposition that composition does not make again."""
    for code in range(LAST):
        found = unicodedata.decomposition(chr(code))
        if found and not found.startswith("<") and unicodedata.normalize("NFC", chr(code)) != chr(code):
            yield code


def combining() -> Iterable[int]:
    for code in range(LAST):
        if unicodedata.combining(chr(code)):
            yield from (code, unicodedata.combining(chr(code)))


def lower() -> Iterable[int]:
    """Code point and its lower case, of those where it is one code point."""
    normalizer = normalizers.Lowercase()
    for code in (code for code in range(LAST) if not surrogate(code)):
        small = normalizer.normalize_str(chr(code))
        if len(small) == 1 and ord(small) != code:
            yield from (code, ord(small))


def write(name: str, numbers: Iterable[int]) -> None:
    print(f"constexpr uint32_t {name}[] = {{")
    line = "   "
    for number in numbers:
        if len(line) > 110:
            print(line)
            line = "   "
        line += f" {number:#x},"
    print(line + "};\n")


def main() -> None:
    sources = f"Unicode {unicodedata.unidata_version} and tokenizers {version('tokenizers')}"
    print(f"// Written by make_unicode.py from {sources}; do not edit.")
    print("#pragma once\n#include <cstdint>\n\nnamespace slmc::run {\n")
    write("kLetters", ranges(matched(r"\p{L}")))
    write("kNumbers", ranges(matched(r"\p{N}")))
    write("kMarks", ranges(dropped(strip_accents=True)))
    write("kPunctuation", ranges(punctuation()))
    write("kOthers", ranges(dropped(clean_text=True)))
    write("kWords", ranges(words()))
    write("kSpaces", ranges(lambda code: code in WHITE_SPACE))
    write("kDecompositions", decompositions())
    write("kNotComposed", excluded())
    write("kCombining", combining())
    write("kLower", lower())
    print("}  // namespace slmc::run")


if __name__ == "__main__":
    sys.exit(main())
