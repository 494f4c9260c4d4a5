"""Writes unicode_tables.h from Python's Unicode data: python make_unicode.py > unicode_tables.h"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable

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


def category(*firsts: str) -> Callable[[int], bool]:
    return lambda code: unicodedata.category(chr(code)).startswith(firsts)


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
    for code in range(LAST):
        small = chr(code).lower()
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
    print(f"// Written by make_unicode.py from Unicode {unicodedata.unidata_version}; do not edit.")
    print("#pragma once\n#include <cstdint>\n\nnamespace slmc::run {\n")
    write("kLetters", ranges(category("L")))
    write("kNumbers", ranges(category("N")))
    write("kMarks", ranges(category("Mn")))
    write("kPunctuation", ranges(category("P")))
    write("kOthers", ranges(category("Cc", "Cf", "Co")))
    write("kWords", ranges(lambda code: category("L", "M", "Nd", "Nl", "Pc")(code)))
    write("kSpaces", ranges(lambda code: code in WHITE_SPACE))
    write("kDecompositions", decompositions())
    write("kNotComposed", excluded())
    write("kCombining", combining())
    write("kLower", lower())
    print("}  // namespace slmc::run")


if __name__ == "__main__":
    sys.exit(main())
