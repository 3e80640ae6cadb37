"""Options of the VAEs that diffusers has and fails at, held against its decode without them: slices of a batch, and
decoding frame by frame. In Kino both are what it always does: a video is decoded alone, and in runs of frames, exactly."""
import json
import os

import diffusers
import numpy as np
import pytest
import torch

import fixtures
import kino_render
import matrix
from lossy_run import FRAMES
from oracle.run import call_arguments, load_pipeline

# The 0.9.1 decoder's noise comes from one generator for the whole batch, so the second video's is another there.
BATCHES = [case for case in fixtures.every_generation() if case.task == "t2v" and (case.family, case.generation) != ("ltx", 1)]


def read(path, **changes):
    with open(path, encoding="utf-8") as file:
        return {**json.load(file), **changes}


def batch_of_two(case, seeds, **vae_options):
    """diffusers' frames of both, made in one batch."""
    fixture = fixtures.make(case)
    request = read(os.path.join(fixture.folder, "request.json"))
    pipeline = load_pipeline(fixture.folder, {**request, **vae_options}, torch.float32)
    arguments = call_arguments(pipeline, request, fixture.folder)
    for name in {"prompt", "negative_prompt"} & arguments.keys():
        arguments[name] = [arguments[name]] * len(seeds)
    with torch.no_grad():
        return pipeline(generator=[torch.Generator().manual_seed(seed) for seed in seeds], output_type="np", **arguments).frames


@matrix.sliced("case", BATCHES, lambda case: [("family", case.family)], ids=lambda case: case.name)
def test_each_video_is_decoded_as_in_a_batch(case, pytestconfig):
    fixture = fixtures.make(case)
    seeds = (case.seed, case.seed + 1)
    # Allegro's tiles hold one video: its batch has to be sliced.
    want = batch_of_two(case, seeds, vae_slicing=case.family == "allegro")
    got = kino_render.render_all(fixture.model, [kino_render.Request(read(fixture.request("untiled"), seed=seed)) for seed in seeds])
    errors = [float(np.abs(ours - theirs).max()) for ours, theirs in zip(got, want)]
    pytestconfig.kino_note(f"{case.name}: of two in a batch, frames max abs error {max(errors):.2e}")
    assert max(errors) <= FRAMES
    assert np.abs(got[0] - got[1]).max() > 10 * FRAMES


def test_diffusers_has_no_slices_of_timestep_conditioned_latents():
    with pytest.raises(RuntimeError, match="must match the size"):
        batch_of_two(next(case for case in BATCHES if case.name == "t2v-2"), (1, 2), vae_slicing=True)


def test_slicing_is_no_option(tmp_path):
    fixture = fixtures.make(BATCHES[0])
    with pytest.raises(RuntimeError, match="vae_slicing"):
        kino_render.render(fixture.model, read(fixture.request("untiled"), plan={"vae_slicing": True}))
    with pytest.raises(RuntimeError, match="vae-slicing"):
        kino_render.render(fixture.model, fixture.request("untiled"), flags=["--vae-slicing"])


# LTX-Video's VAE has tiles in time, which change the frames: ltx_options_test.py.
EXACT = [case for case in fixtures.every_generation() if case.family != "ltx"]
ONE_TILE = {f"tile_sample_{what}_{axis}": 4096 for what in ("min", "stride") for axis in ("height", "width")}


@matrix.sliced("case", EXACT, lambda case: [("task", case.family, case.task)], ids=lambda case: case.name)
def test_frame_by_frame_is_the_whole_clip(case, pytestconfig):
    fixture = fixtures.make(case)
    for name in case.tilings:
        request = read(fixture.request(name))
        for condition in request.get("conditions", []):
            condition["path"] = os.path.join(fixture.folder, condition["path"])
        # Allegro's own tiles are what "untiled" has there.
        tiles = request.get("plan", {}).get("vae_tiling", {} if case.family == "allegro" else ONE_TILE)
        got = kino_render.render(fixture.model, {**request, "plan": {"vae_tiling": {**tiles, "framewise": True}}})
        error = float(np.abs(got - fixture.frames(name)).max())
        pytestconfig.kino_note(f"{case.name}-{name}: frame by frame, frames max abs error {error:.2e}")
        assert error <= FRAMES


def test_diffusers_cannot_decode_mochi_frame_by_frame():
    fixture = fixtures.make(next(case for case in EXACT if case.family == "mochi"))
    vae = diffusers.AutoencoderKLMochi.from_pretrained(os.path.join(fixture.model, "vae"))
    vae._enable_framewise_decoding()
    latents = torch.from_numpy(np.load(os.path.join(fixture.taps("untiled"), "latents.npy")))
    with torch.no_grad(), pytest.raises(Exception, match="."):
        vae.decode(latents)
