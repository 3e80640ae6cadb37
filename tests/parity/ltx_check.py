"""The body of the LTX parity tests: render a case with Kino and compare every stage."""
import pytest

import compare
import kino_render
import ltx_fixtures


def parameters(cases):
    return [pytest.param(case, tiling, id=f"{case.name}-{tiling}")
            for case in cases for tiling in case.tilings]


def check(case, tiling, folder, note):
    fixture = ltx_fixtures.make(case)
    want = fixture.frames(tiling)
    taps = folder / "taps"
    taps.mkdir()
    got = kino_render.render(fixture.model, fixture.request(tiling),
                             variant=case.changes.weights_variant, taps=str(taps))
    result, worst = compare.compare_run(fixture.taps(tiling), str(taps), want, got)
    note(f"{case.name}-{tiling}: frames max abs error {worst:.2e}"
         + (f", first diverges at {result.first}" if result.first else ""))
    assert result.first is None, f"{case.name}-{tiling}: {result}"
