"""What ARCHITECTURE.md names exists: the tests of its table "What happens when"."""
import os
import pathlib
import re

import pytest

ROOT = pathlib.Path(os.environ["KINO_SOURCE_DIR"])


def named_tests():
    """(file below tests, name in it or None) of each test in the table's last column."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.split("## What happens when")[1].split("\n## ")[0]
    rows = [line.split(" | ")[-1] for line in table.splitlines() if line.startswith("| ")][1:]
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        assert names, f"a row without a test: {row}"
        file = None
        for name in names:
            if name.startswith("test_"):  # of the file that was named before it
                yield file, name
                continue
            file, _, case = name.partition("::")
            if "/" not in file:
                file = f"server/frontend/{file}"
            yield file, case or None


@pytest.mark.parametrize("file, name", list(named_tests()))
def test_tests_of_the_table_exist(file, name):
    found = [path for suffix in (".py", ".cc") if (path := ROOT / "tests" / f"{file}{suffix}").exists()]
    assert found, f"no file {file}"
    assert name is None or re.search(rf"\b{name}\b", found[0].read_text(encoding="utf-8")), f"no {name} in {file}"


def test_the_table_is_read():
    assert len(list(named_tests())) > 20
