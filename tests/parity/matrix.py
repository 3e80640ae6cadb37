"""Matrices of cases: a slice of each in every run, the whole with KINO_TEST_MATRIX=whole (scripts/check matrices).

`sliced` is pytest.mark.parametrize that says what is to be covered. A slice is not random: the same cases until the
matrix itself changes. What it leaves out carries the marker `whole`, by which conftest.py deselects it.
"""
import os

import pytest


def is_whole():
    asked = os.environ.get("KINO_TEST_MATRIX", "slice")
    if asked not in ("slice", "whole"):
        raise ValueError(f"KINO_TEST_MATRIX: expected slice or whole, got '{asked}'")
    return asked == "whole"


def sliced(names, cases, facts, ids=None):
    """pytest.mark.parametrize(names, cases, ids=ids) whose slice holds every fact of every case at least once.

    facts(*case) returns what a case is about, as hashable values that differ between axes: ("dtype", "bfloat16"). A pair
    of values that has to meet is one fact: ("scheme in", scheme, component). `cases` may be pytest.param.
    """
    cases = [_as_param(case) for case in cases]
    taken = cover([frozenset(facts(*case.values)) for case in cases])
    marked = [case if index in taken else pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.whole])
              for index, case in enumerate(cases)]
    return pytest.mark.parametrize(names, marked, ids=ids)


def cover(facts):
    """Indices of a small set of `facts` (sets) whose union is that of all.

    Each is the one with most facts that are not covered yet; among equals the one whose facts were taken least often
    before, then the first. So axes turn together where one case each would do.
    """
    left = set().union(*facts)
    times = {fact: 0 for fact in left}
    taken = []
    while left:
        best = max((index for index in range(len(facts)) if index not in taken),
                   key=lambda index: (len(facts[index] & left), -sum(times[fact] for fact in facts[index]), -index))
        taken.append(best)
        left -= facts[best]
        for fact in facts[best]:
            times[fact] += 1
    return sorted(taken)


def _as_param(case):
    if hasattr(case, "values") and hasattr(case, "marks"):
        return case
    return pytest.param(*(case if isinstance(case, tuple) else (case,)))
