"""What must not change the frames: where weights are, and when. Every policy and home against --offload none, to the
bit, on one thread, on the oracle's checkpoints of every family; and how much each may hold."""
import json

import numpy as np
import pytest

import kino_render
import fixtures
import matrix
from fixtures import Case

GENERATIONS = [Case(f"plans-{task}-{generation}", task, generation)
               for task in ("t2v", "i2v") for generation in range(3)]
GENERATIONS += [Case(f"plans-mochi-{variant}", "t2v", variant, family="mochi") for variant in range(2)]
GENERATIONS += [Case("plans-allegro-0", "t2v", 0, family="allegro")]
GENERATIONS += [Case(f"plans-cogvideox-{task}-{variant}", task, variant, family="cogvideox")
                for task, variant in (("t2v", 0), ("t2v", 1), ("i2v", 2), ("v2v", 3))]
GENERATIONS += [Case("plans-long-2", "long", 2)]
POLICIES = ["none", "model", "sequential", "leaf", "block:1", "block:2"]
HOMES = ["file", "pageable"]
PLACES = [(case, policy, home) for case in GENERATIONS for home in HOMES for policy in POLICIES]
CHUNKS = [1, 7, 64]


def render(fixture, tmp_path, *flags):
    stats = tmp_path / "stats.json"
    frames = kino_render.render(fixture.model, fixture.request("untiled"), flags=flags, stats=str(stats))
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
            assert np.abs(frames[case.name] - fixture.frames("untiled")).max() <= 1e-4
            assert peak(stats, "peak_weight_bytes") == 0
        return frames[case.name]

    return of


# A process each: one that has encoded a prompt does not encode it again, and the encoder's policy is tried as well.
@matrix.sliced("case,policy,home", PLACES, lambda case, policy, home: [
    ("place", policy, home, case.family), ("policy", policy, case.family, case.generation), ("case", case.name)],
               ids=lambda value: getattr(value, "name", value))
def test_every_policy_and_home_gives_the_same_bits(case, policy, home, resident, tmp_path):
    fixture = fixtures.make(case)
    want = resident(case)
    got, stats = render(fixture, tmp_path, "--offload", policy, "--weights-home", home)
    assert np.array_equal(got, want), f"{policy} from {home}: off by up to {np.abs(got - want).max()}"
    if home == "file" and policy != "none":
        # Everything that is copied is there for a while only.
        assert 0 < peak(stats, "peak_weight_bytes") < peak_of_all(fixture)


def peak_of_all(fixture):
    import glob
    import os
    return sum(os.path.getsize(path) for path in glob.glob(os.path.join(fixture.model, "*", "*.safetensors")))


@pytest.mark.parametrize("case", GENERATIONS[:1] + GENERATIONS[4:5] + GENERATIONS[6:7] + GENERATIONS[8:], ids=lambda case: case.name)
def test_each_component_has_a_policy_of_its_own(case, resident, tmp_path):
    fixture = fixtures.make(case)
    want = resident(case)
    got, stats = render(fixture, tmp_path, "--offload", "text_encoder=leaf,transformer=block:1",
                        "--weights-home", "pageable,vae=file")
    assert np.array_equal(got, want)
    by_stage = {stage["stage"]: stage["peak_weight_bytes"] for stage in stats["stages"]}
    assert by_stage["encode_text"] > 0 and by_stage["denoise"] > 0
    assert by_stage["decode"] == 0  # the VAE stays in its file


@matrix.sliced("tokens,case", [(tokens, case) for tokens in CHUNKS for case in GENERATIONS],
               lambda tokens, case: [("tokens", tokens), ("task", case.family, case.task), ("generation", case.family, case.generation)],
               ids=lambda value: getattr(value, "name", value))
def test_chunked_feed_forward_is_the_whole_one(case, tokens, resident, tmp_path):
    fixture = fixtures.make(case)
    want = resident(case)
    got, _ = render(fixture, tmp_path, "--chunk-feed-forward", str(tokens))
    # Rows of a matrix product do not see each other; how many there are only changes the order of its sums.
    assert np.abs(got - want).max() <= 1e-5


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
