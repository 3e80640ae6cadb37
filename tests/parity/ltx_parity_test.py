"""LTX-Video against diffusers, float32 on the CPU: every VAE generation, each of its pipelines, untiled and tiled."""
import parity_check
import fixtures


def facts(case, tiling):
    # Of long videos each case is about something else.
    return [(case.task, case.generation, tiling), *([(case.name,)] if case.task == "long" else [])]


@parity_check.parametrize(fixtures.matrix(), facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)
