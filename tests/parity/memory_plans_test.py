"""What must not change the frames: where weights are, and when. Every policy and home against --offload none, to the
bit, on one thread, on the oracle's checkpoints of all three LTX generations; and how much each may hold."""
import json

import numpy as np
import pytest

import kino_render
import ltx_fixtures
from ltx_fixtures import Case

GENERATIONS = [Case(f"plans-{task}-{generation}", task, generation)
               for task in ("t2v", "i2v") for generation in range(3)]
POLICIES = ["model", "sequential", "leaf", "block:1", "block:2"]
HOMES = ["file", "pageable"]


def render(fixture, tmp_path, *flags):
    stats = tmp_path / "stats.json"
    frames = kino_render.render(fixture.model, fixture.request("untiled"), flags=flags, stats=str(stats))
    return frames, json.loads(stats.read_text())


def peak(stats, key):
    return max(stage[key] for stage in stats["stages"])


@pytest.mark.parametrize("case", GENERATIONS, ids=lambda case: case.name)
def test_every_policy_and_home_gives_the_same_bits(case, tmp_path, pytestconfig):
    fixture = ltx_fixtures.make(case)
    want, resident = render(fixture, tmp_path, "--offload", "none")
    assert np.abs(want - fixture.frames("untiled")).max() <= 1e-4
    for home in HOMES:
        for policy in ["none", *POLICIES]:
            got, stats = render(fixture, tmp_path, "--offload", policy, "--weights-home", home)
            assert np.array_equal(got, want), f"{policy} from {home}: off by up to {np.abs(got - want).max()}"
            if home == "file" and policy != "none":
                # Everything that is copied is there for a while only.
                assert 0 < peak(stats, "peak_weight_bytes") < peak_of_all(fixture), policy
    assert peak(resident, "peak_weight_bytes") == 0  # used in the mapped file
    pytestconfig.kino_note(f"{case.name}: {len(POLICIES) * len(HOMES)} plans give the bits of none")


def peak_of_all(fixture):
    import glob
    import os
    return sum(os.path.getsize(path) for path in glob.glob(os.path.join(fixture.model, "*", "*.safetensors")))


@pytest.mark.parametrize("case", GENERATIONS[:1] + GENERATIONS[4:5], ids=lambda case: case.name)
def test_each_component_has_a_policy_of_its_own(case, tmp_path):
    fixture = ltx_fixtures.make(case)
    want, _ = render(fixture, tmp_path, "--offload", "none")
    got, stats = render(fixture, tmp_path, "--offload", "text_encoder=leaf,transformer=block:1",
                        "--weights-home", "pageable,vae=file")
    assert np.array_equal(got, want)
    by_stage = {stage["stage"]: stage["peak_weight_bytes"] for stage in stats["stages"]}
    assert by_stage["encode_text"] > 0 and by_stage["denoise"] > 0
    assert by_stage["decode"] == 0  # the VAE stays in its file


@pytest.mark.parametrize("case", GENERATIONS, ids=lambda case: case.name)
@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_chunked_feed_forward_is_the_whole_one(case, tokens, tmp_path):
    fixture = ltx_fixtures.make(case)
    want, _ = render(fixture, tmp_path)
    got, _ = render(fixture, tmp_path, "--chunk-feed-forward", str(tokens))
    # Rows of a matrix product do not see each other; how many there are only changes the order of its sums.
    assert np.abs(got - want).max() <= 1e-5


def test_a_plan_in_the_request_goes_over_the_flags(tmp_path):
    fixture = ltx_fixtures.make(GENERATIONS[2])
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = json.load(file)
    request["plan"] = {"offload": "leaf", "prefetch": 2}
    stats = tmp_path / "stats.json"
    kino_render.render(fixture.model, request, flags=["--offload", "block:1"], stats=str(stats))
    plan = json.loads(stats.read_text())["plan"]
    assert plan["offload"] == "leaf" and plan["prefetch"] == 2


def test_pinned_memory_without_a_gpu_is_refused(tmp_path):
    fixture = ltx_fixtures.make(GENERATIONS[0])
    with pytest.raises(RuntimeError, match="pinned.*needs a GPU"):
        render(fixture, tmp_path, "--offload", "block:1", "--weights-home", "pinned")
