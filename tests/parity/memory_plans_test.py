"""The table {family x task} x {where weights are, VAE tiles, casting, nf4}, on the oracle's checkpoints of every family.

Where weights are, and when, must not change the frames: every policy and home against weights used in their mapped file, to
the bit, on one thread; and how much each may hold. Tiles, casting and quantization do change them: they are held against the
reference library's. More of what is lossy: lossy_plans_test.py.
"""
import json

import numpy as np
import pytest
import torch

import kino_render
import fixtures
import lossy_oracle
import matrix
from lossy_run import FRAMES, Run, check_frames

GENERATIONS = fixtures.every_generation()
# One of each family and task.
TASKS = [case for case in GENERATIONS if case.variant == 0]
POLICIES = ["none", "model", "sequential", "leaf", "block:1", "block:2"]
HOMES = ["file", "pageable"]
LOSSLESS = {f"{policy}-{home}": ["--offload", policy, "--weights-home", home] for policy in POLICIES for home in HOMES}
CHUNKS = [1, 7, 64]


def render(fixture, tmp_path, *flags, tiling="untiled"):
    stats = tmp_path / "stats.json"
    frames = kino_render.render(fixture.model, fixture.request(tiling), flags=flags, stats=str(stats))
    return frames, json.loads(stats.read_text())


def peak(stats, key):
    return max(stage[key] for stage in stats["stages"])


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    """resident(case): its frames with all weights used in their mapped file."""
    frames = {}

    def of(case):
        if case.name not in frames:
            fixture = fixtures.make(case)
            frames[case.name], stats = render(fixture, tmp_path_factory.mktemp("resident"), "--offload", "none")
            assert np.abs(frames[case.name] - fixture.frames("untiled")).max() <= FRAMES
            assert peak(stats, "peak_weight_bytes") == fixture.converted_bytes()
        return frames[case.name]

    return of


def check_lossless(case, column, resident, tmp_path, _):
    fixture = fixtures.make(case)
    want = resident(case)
    got, stats = render(fixture, tmp_path, *LOSSLESS[column])
    assert np.array_equal(got, want), f"{column}: off by up to {np.abs(got - want).max()}"
    if column.endswith("-file") and column != "none-file":
        # Everything that is copied is there for a while only.
        assert 0 < peak(stats, "peak_weight_bytes") < peak_of_all(fixture)


def check_vae_tiling(case, _, resident, tmp_path, note):
    fixture = fixtures.make(case)
    if "tiled" not in case.tilings:  # its VAE always tiles: asked for, its own tiles are the same ones
        got, _ = render(fixture, tmp_path, "--vae-tiling")
        assert np.array_equal(got, resident(case))
        return
    got, _ = render(fixture, tmp_path, tiling="tiled")
    error, moved = (float(np.abs(got - other).max()) for other in (fixture.frames("tiled"), resident(case)))
    note(f"{case.name} tiled: frames max abs error {error:.2e} (untiled frames differ by {moved:.2e})")
    assert moved > 10 * FRAMES and error <= FRAMES
    offloaded, _ = render(fixture, tmp_path, "--offload", "leaf", tiling="tiled")
    assert np.array_equal(offloaded, got)


def check_float8(case, _, resident, tmp_path, note):
    run = Run(case.name)
    parts = run.loaded_parts()
    held = sum(lossy_oracle.cast(run.pipeline, part, torch.float8_e4m3fn, torch.float32) for part in parts)
    got, weights = run.got(tmp_path, "--storage-dtype", run.asked(parts, "float8_e4m3fn"))
    check_frames(run, got, run.wanted(), f"{case.name} float8", note)
    assert weights == held + run.fixture.converted_bytes()  # the rest is used in the mapped file


# What nf4 leaves alone: autoencoders, and what has no linear layer.
NOT_REACHED = ("vae", "latent_upsampler")


def check_nf4(case, _, resident, tmp_path, note):
    run = Run(case.name)
    held = sum(sum(lossy_oracle.quantize(run.part(part), "nf4").values()) for part in run.loaded_parts() if part not in NOT_REACHED)
    got, weights = run.got(tmp_path, "--quantize", "nf4")
    check_frames(run, got, run.wanted(), f"{case.name} nf4", note)
    assert weights == held + run.fixture.converted_bytes()


COLUMNS = {**{column: check_lossless for column in LOSSLESS}, "vae_tiling": check_vae_tiling, "float8": check_float8, "nf4": check_nf4}


# A process each: one that has encoded a prompt does not encode it again, and the encoder's policy is tried as well.
# A home does not know what it holds: each task has every home, each generation every column. A latent upsampler has no
# linear layer that nf4 could reach.
@matrix.sliced("case,column", [(case, column) for case in GENERATIONS for column in COLUMNS
                               if (case in TASKS or not column.endswith("-pageable")) and (case.task, column) != ("upsample", "nf4")], lambda case, column: [
    ("column", case.family, column.split("-")[0]), ("home", column), ("task", case.family, case.task),
    ("generation", case.family, case.generation)], ids=lambda value: getattr(value, "name", value))
def test_every_plan_gives_the_frames_it_promises(case, column, resident, tmp_path, pytestconfig):
    COLUMNS[column](case, column, resident, tmp_path, pytestconfig.kino_note)


def peak_of_all(fixture):
    import glob
    import os
    return sum(os.path.getsize(path) for path in glob.glob(os.path.join(fixture.model, "*", "*.safetensors")))


@pytest.mark.parametrize("case", [case for case in TASKS if case.task != "upsample"], ids=lambda case: case.name)
def test_each_component_has_a_policy_of_its_own(case, resident, tmp_path):
    fixture = fixtures.make(case)
    want = resident(case)
    got, stats = render(fixture, tmp_path, "--offload", "text_encoder=leaf,transformer=block:1",
                        "--weights-home", "text_encoder=pageable,transformer=pageable")
    assert np.array_equal(got, want)
    by_stage = {stage["stage"]: stage["peak_weight_bytes"] for stage in stats["stages"]}
    assert by_stage["encode_text"] > 0 and by_stage["denoise"] > 0
    assert by_stage["decode"] == 0  # the others stay in their files


@matrix.sliced("tokens,case", [(tokens, case) for tokens in CHUNKS for case in GENERATIONS if case.task != "upsample"],
               lambda tokens, case: [("tokens", tokens), ("task", case.family, case.task), ("generation", case.family, case.generation)],
               ids=lambda value: getattr(value, "name", value))
def test_chunked_feed_forward_is_the_whole_one(case, tokens, resident, tmp_path):
    fixture = fixtures.make(case)
    want = resident(case)
    got, _ = render(fixture, tmp_path, "--chunk-feed-forward", str(tokens))
    # Rows of a matrix product do not see each other; how many there are only changes the order of its sums. Up to 1.1e-5
    # was seen (CogVideoX with DPM, whose first step divides by little).
    assert np.abs(got - want).max() <= 3e-5


def test_a_plan_in_the_request_goes_over_the_flags(tmp_path):
    fixture = fixtures.make(GENERATIONS[2])
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = json.load(file)
    request["plan"] = {"offload": "leaf", "prefetch": 2}
    stats = tmp_path / "stats.json"
    kino_render.render(fixture.model, request, flags=["--offload", "block:1"], stats=str(stats))
    plan = json.loads(stats.read_text())["plan"]
    assert plan["offload"] == "leaf" and plan["prefetch"] == 2


def test_pinned_memory_without_a_gpu_is_refused(tmp_path):
    fixture = fixtures.make(GENERATIONS[0])
    with pytest.raises(RuntimeError, match="pinned.*needs a GPU"):
        render(fixture, tmp_path, "--offload", "block:1", "--weights-home", "pinned")
