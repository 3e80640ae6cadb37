#!/usr/bin/env python3
"""Writes caption_tables.cc: what Python says of letters, normal forms and HTML's entities.

Needs Python 3.11, whose unicodedata is Unicode 14.0. Usage: make_caption_tables.py > caption_tables.cc
"""
import sys
import unicodedata
from html.entities import html5

from table_file import CHARACTERS, boundaries, lower_runs, write


def decompositions():
    """[character, first, second or 0, is made again by NFC], Hangul left out."""
    out = []
    for c in CHARACTERS:
        parts = unicodedata.decomposition(c)
        if not parts or parts.startswith("<"):
            continue
        parts = [int(part, 16) for part in parts.split()]
        is_made = unicodedata.normalize("NFC", c) == c
        second = parts[1] if len(parts) > 1 else 0
        out.append(f"{{0x{ord(c):X}, 0x{parts[0]:X}, 0x{second:X}, {str(is_made).lower()}}}")
    return out


def escaped(text):
    return "".join(f"\\{byte:03o}" for byte in text.encode())


def widths():
    """What stands for U+FF01 and those behind it."""
    normal = (unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0))
    return [f'"{escaped(text)}"' for text in normal]


def entities():
    return [f'{{"{name}", "{escaped(text)}"}}' for name, text in sorted(html5.items())]


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"make_caption_tables.py: this Python has Unicode {unicodedata.unidata_version}, not 14.0.0")
    write("make_caption_tables.py", "Python 3.11's data", "caption_tables.h", [
        ("LowerRun", "kLowerRuns", "kLowerRunCount", lower_runs(str.lower)),
        ("Decomposition", "kDecompositions", "kDecompositionCount", decompositions()),
        ("uint32_t", "kCombiningBoundaries", "kCombiningBoundaryCount",
         boundaries({c: unicodedata.combining(c) for c in CHARACTERS})),
        ("char* const", "kWidths", "kWidthCount", widths()),
        ("HtmlEntity", "kHtmlEntities", "kHtmlEntityCount", entities())])


main()
