"""LTX-Video against diffusers, float32 on the CPU: every VAE generation, text and image to video, untiled and tiled."""
import ltx_check
import ltx_fixtures


def facts(case, tiling):
    return [(case.task, case.generation, tiling)]


@ltx_check.parametrize(ltx_fixtures.matrix(), facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    ltx_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)
