"""In bfloat16 Kino is as close to diffusers' float32 frames as diffusers' own bfloat16 is."""
import torch

import compare
import kino_render
import fixtures
import matrix

ALLOWED_LOSS_DB = 1.0
CASES = [case for family in ("ltx", "mochi") for case in fixtures.matrix(family) if case.variant < 6]


@matrix.sliced("case", CASES, lambda case: [("task", case.family, case.task), ("generation", case.family, case.generation)],
               ids=lambda case: case.name)
def test_bfloat16_is_as_close_as_diffusers(case, pytestconfig):
    fixture = fixtures.make(case)
    want = fixture.frames("untiled")
    theirs = compare.psnr(want, fixture.diffusers_frames(torch.bfloat16))
    got = kino_render.render(fixture.model, fixture.request("untiled"), dtype="bfloat16")
    assert got.shape == want.shape
    ours = compare.psnr(want, got)
    pytestconfig.kino_note(f"{case.name}: bfloat16 PSNR {ours:.1f} dB, diffusers' {theirs:.1f} dB")
    assert ours >= theirs - ALLOWED_LOSS_DB
