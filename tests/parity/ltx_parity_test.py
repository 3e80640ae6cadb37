"""LTX-Video against diffusers, float32 on the CPU: every VAE generation, text and image to video, untiled and tiled."""
import pytest

import ltx_check
import ltx_fixtures


@pytest.mark.parametrize("case,tiling", ltx_check.parameters(ltx_fixtures.matrix()))
def test_stages_equal_diffusers(case, tiling, tmp_path, pytestconfig):
    ltx_check.check(case, tiling, tmp_path, pytestconfig.kino_note)
