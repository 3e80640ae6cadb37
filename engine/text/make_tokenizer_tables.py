#!/usr/bin/env python3
"""Writes tokenizer_tables.cc: what the `tokenizers` package believes about characters, found by asking it.

Its parts carry Unicode tables of their own, of different versions: regular expressions (Oniguruma), lower case (Rust's
standard library) and NFC (unicode-normalization-alignments). Usage: make_tokenizer_tables.py > tokenizer_tables.cc, with
tokenizers 0.23 and a Python whose unicodedata is at least as new as the package's normal forms (3.11 is).
"""
import unicodedata

from table_file import CHARACTERS, boundaries, lower_runs, write
from tokenizers import Regex, normalizers, pre_tokenizers

# In the order of Category (tokenizer_tables.h).
CATEGORIES = "Cn Cc Cf Co Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp".split()


def categories():
    """The category of each character."""
    out = {}
    for number, name in enumerate(CATEGORIES):
        split = pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), "removed", invert=True)
        for i in range(0, len(CHARACTERS), 4096):
            block = "".join(CHARACTERS[i:i + 4096])
            for _, (begin, end) in split.pre_tokenize_str(block):
                for c in block[begin:end]:
                    assert c not in out, f"U+{ord(c):04X} is of two categories"
                    out[c] = number
    assert len(out) == len(CHARACTERS)
    return out


def lower(c):
    small = normalizers.Lowercase().normalize_str(c)
    assert len(small) == 1 or (c, small) == ("\u0130", "i\u0307")
    return small


def combining_classes():
    """By character, where the package puts it into order. U+0345 has the highest class, so that others go before it."""
    nfd = normalizers.NFD()
    out = {"\u0345": 240}
    for c in CHARACTERS:
        number = unicodedata.combining(c)
        if number not in (0, 240) and nfd.normalize_str("\u0345" + c) != "\u0345" + c:
            out[c] = number
    return out


def unknown_decompositions():
    """Characters that decompose for Python, but not for the package."""
    nfd = normalizers.NFD()
    return [f"0x{ord(c):X}" for c in CHARACTERS if unicodedata.normalize("NFD", c) != nfd.normalize_str(c)]


def main():
    write("make_tokenizer_tables.py", "tokenizers 0.23", "tokenizer_tables.h", [
        ("uint32_t", "kCategoryBoundaries", "kCategoryBoundaryCount", boundaries(categories())),
        ("LowerRun", "kTokenizerLowerRuns", "kTokenizerLowerRunCount", lower_runs(lower)),
        ("uint32_t", "kTokenizerCombiningBoundaries", "kTokenizerCombiningBoundaryCount", boundaries(combining_classes())),
        ("uint32_t", "kTokenizerUnknownDecompositions", "kTokenizerUnknownDecompositionCount", unknown_decompositions())])


main()
