"""The body of the parity tests: render a case with Kino and compare every stage."""
import pytest

import compare
import kino_render
import fixtures
import matrix


def parametrize(cases, facts):
    """matrix.sliced over each case's tilings."""
    return matrix.sliced("case,tiling", [pytest.param(case, tiling, id=f"{case.name}-{tiling}")
                                         for case in cases for tiling in case.tilings], facts)


_rendered = {}  # by a case's name


def rendered(case, fixture, tmp_path_factory):
    """{tiling: (frames, folder of taps)}: all of the case's, in one process."""
    if case.name not in _rendered:
        folders = [str(tmp_path_factory.mktemp("taps")) for _ in case.tilings]
        frames = kino_render.render_all(
            fixture.model, [kino_render.Request(fixture.request(tiling), taps=taps)
                            for tiling, taps in zip(case.tilings, folders)], variant=case.changes.weights_variant)
        _rendered[case.name] = dict(zip(case.tilings, zip(frames, folders)))
    return _rendered[case.name]


def check(case, tiling, tmp_path_factory, note):
    fixture = fixtures.make(case)
    got, taps = rendered(case, fixture, tmp_path_factory)[tiling]
    result, worst = compare.compare_run(fixture.taps(tiling), taps, fixture.frames(tiling), got)
    note(f"{case.name}-{tiling}: frames max abs error {worst:.2e}"
         + (f", first diverges at {result.first}" if result.first else ""))
    assert result.first is None, f"{case.name}-{tiling}: {result}"
