#!/usr/bin/env python3
"""Writes unicode_tables.cc: the Unicode 17.0 properties that unicode.cc needs.

Needs the `regex` package in a release whose tables are Unicode 17.0 (2025.9.1 to 2025.11.3): the version that the
reference tokenizer's grapheme segmentation has. Usage: make_unicode_tables.py > unicode_tables.cc
"""
import sys

import regex
from table_file import CHARACTERS, boundaries, write

# The numbers are GraphemeClass's (unicode.h). Hangul LV and LVT are computed there, not listed.
CLASSES = [
    (1, r"\p{GCB=CR}"),
    (2, r"\p{GCB=LF}"),
    (3, r"\p{GCB=Control}"),
    (4, r"[\p{GCB=Extend}&&\p{InCB=Extend}]"),
    (5, r"[\p{GCB=Extend}--\p{InCB=Extend}--\p{InCB=Linker}]"),
    (6, r"\p{InCB=Linker}"),
    (7, r"\p{GCB=ZWJ}"),
    (8, r"\p{GCB=SpacingMark}"),
    (9, r"\p{GCB=Prepend}"),
    (10, r"\p{GCB=L}"),
    (11, r"\p{GCB=V}"),
    (12, r"\p{GCB=T}"),
    (15, r"\p{GCB=Regional_Indicator}"),
    (16, r"\p{Extended_Pictographic}"),
    (17, r"\p{InCB=Consonant}"),
]
WORD = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]"


def members(pattern):
    compiled = regex.compile(pattern, regex.V1)
    return [c for c in CHARACTERS if compiled.fullmatch(c)]


def word_edges():
    """Wherever "is a word character" flips."""
    words, out = set(members(WORD)), []
    for c in CHARACTERS:
        if (c in words) != len(out) % 2:
            out.append(f"0x{ord(c):X}")
    return out


def main():
    if not regex.fullmatch(r"\p{GCB=Extend}", chr(0x1ACF)) or regex.fullmatch(r"\p{GCB=Extend}", chr(0x5C8)):
        sys.exit("make_unicode_tables.py: this regex package is not of Unicode 17.0; regex==2025.11.3 is")
    classes = {}
    for number, pattern in CLASSES:
        for c in members(pattern):
            assert c not in classes, f"U+{ord(c):04X} is of two classes"
            classes[c] = number
    write("make_unicode_tables.py", "the Unicode 17.0 data", "unicode_tables.h", [
        ("uint32_t", "kGraphemeBoundaries", "kGraphemeBoundaryCount", boundaries(classes)),
        ("uint32_t", "kWordBoundaries", "kWordBoundaryCount", word_edges())])


main()
