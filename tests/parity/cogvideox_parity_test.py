"""CogVideoX against diffusers, float32 on the CPU: 2b, 5b and 1.5 in each task, untiled and tiled, and what they leave out."""
import fixtures
import parity_check

CASES = [
    *fixtures.matrix("cogvideox"),
]


def facts(case, tiling):
    option = case.name.removesuffix(f"-{case.variant}")
    return [("option", option), ("tiling", case.task, tiling), ("generation", option, case.generation)]


@parity_check.parametrize(CASES, facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)
