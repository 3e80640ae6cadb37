"""No case is lost between the slices of every run and the whole matrices of `scripts/check matrices`."""
import collections
import glob
import os

import pytest

import matrix

HERE = os.path.dirname(os.path.abspath(__file__))
# Cases of each whole matrix. A number grows with its matrix; one that shrinks is a case that nobody runs any more.
WHOLE = {"allegro_parity_test.py": 29, "bfloat16_test.py": 102, "cogvideox_parity_test.py": 173, "demo_model_test.py": 9,
         "demo_training_test.py": 201, "file_memory_test.py": 10, "hunyuan_parity_test.py": 209, "lossy_plans_test.py": 179,
         "ltx_options_test.py": 77,
         "ltx_parity_test.py": 173, "memory_plans_test.py": 701, "mochi_parity_test.py": 50, "plan_accuracy_test.py": 341,
         "published_configs_test.py": 45, "real_width_test.py": 2, "single_file_test.py": 25, "vae_options_test.py": 45}
# What no run leaves out a case of.
ALWAYS_WHOLE = ("file_memory_test.py", "published_configs_test.py")
# Left to `scripts/check matrices` altogether.
NEVER_IN_A_SLICE = {"demo_training_test.py::test_smoke_training_yields_a_loadable_folder"}


class Collected:
    """A pytest plugin that keeps the names of what is collected and of what is left out."""

    def __init__(self):
        self.kept, self.left_out = [], []

    def pytest_collection_finish(self, session):
        self.kept = [item.nodeid for item in session.items]

    def pytest_deselected(self, items):
        self.left_out += [item.nodeid for item in items]


def collect(asked):
    collected = Collected()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KINO_TEST_MATRIX", asked)
        files = sorted(path for path in glob.glob(os.path.join(HERE, "*_test.py")) if path != __file__)
        status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", f"--rootdir={HERE}",
                              *files], plugins=[collected])
    assert status == pytest.ExitCode.OK
    return collected


@pytest.fixture(scope="module")
def collections_():
    return collect("slice"), collect("whole")


def test_the_whole_is_the_slice_and_what_it_leaves_out(collections_):
    part, whole = collections_
    assert not whole.left_out
    assert len(set(whole.kept)) == len(whole.kept)
    assert part.left_out and set(part.kept) & set(part.left_out) == set()
    assert set(part.kept) | set(part.left_out) == set(whole.kept)


def test_no_matrix_has_lost_a_case(collections_):
    part, whole = collections_
    assert collections.Counter(name.split("::")[0] for name in whole.kept) == WHOLE
    kept = collections.Counter(name.split("::")[0] for name in part.kept)
    assert set(kept) == set(WHOLE)
    for file in ALWAYS_WHOLE:
        assert kept[file] == WHOLE[file]


def functions(names):
    return {name.split("[")[0] for name in names}


def test_every_test_has_a_case_in_the_slice(collections_):
    part, whole = collections_
    assert functions(part.kept) == functions(whole.kept) - NEVER_IN_A_SLICE


def test_a_slice_covers_every_fact_and_turns_the_axes_together():
    cases = [(scheme, generation) for scheme in "abcdef" for generation in range(3)]
    taken = [cases[index] for index in matrix.cover([{("scheme", s), ("generation", g)} for s, g in cases])]
    assert {scheme for scheme, _ in taken} == set("abcdef") and len(taken) == 6
    assert collections.Counter(generation for _, generation in taken) == {0: 2, 1: 2, 2: 2}
    assert taken == [cases[index] for index in matrix.cover([{("scheme", s), ("generation", g)} for s, g in cases])]


def test_an_unknown_matrix_is_refused(monkeypatch):
    monkeypatch.setenv("KINO_TEST_MATRIX", "most")
    with pytest.raises(ValueError, match="slice or whole, got 'most'"):
        matrix.is_whole()
