"""CogVideoX against diffusers, float32 on the CPU: 2b, 5b and 1.5 in each task, untiled and tiled, and what they leave out."""
import json
import os
import shutil

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler

import compare
import fixtures
import kino_render
import parity_check
from fixtures import Case
from oracle.build import Changes
from oracle.run import load_pipeline, run


def each(name, task="t2v", variants=range(4), tilings=None, **changes):
    extra = {"tilings": tilings} if tilings else {}
    return [Case(f"cogvideox-{task}-{name}-{variant}", task, variant, Changes(**changes), family="cogvideox", **extra)
            for variant in variants]


# Tiles whose step is not what is kept of them, so that frames come out larger than asked; the class's own; and two whose
# overlap is given.
TILINGS = {"larger": dict(tile_sample_min_height=64, tile_sample_min_width=40),
           "defaults": {},
           "overlaps": dict(tile_sample_min_height=64, tile_sample_min_width=64, tile_overlap_factor_height=0.25,
                            tile_overlap_factor_width=0.5)}
CASES = [
    *fixtures.matrix("cogvideox"),
    *each("no_guidance", call={"guidance_scale": 1.0}),
    *each("one_frame", call={"num_frames": 1}),
    # 16 and 17 come out.
    *each("other_frames", call={"num_frames": 15, "height": 32, "width": 32}),
    *each("other_frames", "i2v", (1, 2), call={"num_frames": 19}),
    # 13 latent frames, of which the first three are decoded together and then two at a time; 12, two at a time.
    *each("long", call={"num_frames": 49, "height": 32, "width": 32}),
    *each("even", call={"num_frames": 48, "height": 32, "width": 32}),
    # Of the positions' grid a part in the middle.
    *each("wide", variants=(0, 1), call={"num_frames": 9, "height": 16, "width": 144}),
    *each("tall", variants=(0, 1), call={"num_frames": 9, "height": 128, "width": 32}),
    # diffusers makes 62 steps of these, the last at timestep -1.
    *each("sixty_one_steps", variants=(0, 1), call={"num_inference_steps": 61, "num_frames": 5, "height": 32, "width": 32}),
    *each("tiles", variants=(0, 1), tilings=TILINGS, call={"num_frames": 9, "height": 96, "width": 96}),
    *each("empty_negative", variants=(0,), negative_prompt=""),
    # Positions that are learned are so for one number of frames; others are computed.
    *each("short", "i2v", (0, 1), call={"num_frames": 9}),
    *each("default_tiles", "i2v", (2,), tilings={"defaults": {}}),
    # Three batches of frames are encoded: 9, 8 and 8; 13, 8 and 8.
    *each("long", "v2v", (0, 1), video_frames=25),
    *each("long", "v2v", (2, 3), video_frames=29),
    *each("all_anew", "v2v", call={"strength": 1.0}),
    *each("little", "v2v", call={"strength": 0.3, "num_inference_steps": 7}),
    *each("long", "control", (0, 2), video_frames=29),
    Case("cogvideox-variant_bf16", "t2v", 1, Changes(weights_variant="bf16", weights_dtype=torch.bfloat16),
         family="cogvideox"),
    Case("cogvideox-shards", "t2v", 2, Changes(max_shard_size="60KB"), family="cogvideox"),
]


def facts(case, tiling):
    option = case.name.removesuffix(f"-{case.variant}")
    return [("option", option), ("tiling", case.task, tiling), ("generation", option, case.generation)]


@parity_check.parametrize(CASES, facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)


def case_of(name):
    return next(case for case in CASES if case.name == name)


def rewrite(path, **values):
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**config, **values}, file)


def read_request(fixture, **knobs):
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = json.load(file)
    request["cogvideox"] = {**request["cogvideox"], **knobs}
    for condition in request.get("conditions", []):
        condition["path"] = os.path.join(fixture.folder, condition["path"])
    return request


@pytest.mark.parametrize("name, knob, other", [("cogvideox-t2v-0", 2, "CogVideoXDPMScheduler"),
                                               ("cogvideox-t2v-1", 1, "CogVideoXDDIMScheduler")])
def test_a_request_may_ask_for_the_other_scheduler(name, knob, other, tmp_path):
    """It then runs as the checkpoint would that names it."""
    fixture = fixtures.make(case_of(name))
    asked = kino_render.render(fixture.model, read_request(fixture, scheduler=knob))
    model = shutil.copytree(fixture.model, tmp_path / "model")
    rewrite(model / "scheduler" / "scheduler_config.json", _class_name=other)
    np.testing.assert_array_equal(asked, kino_render.render(str(model), read_request(fixture)))
    assert np.abs(asked - fixture.frames("untiled")).max() > 1e-3


@pytest.mark.parametrize("name", ["cogvideox-v2v-2", "cogvideox-control-2"])
def test_of_images_alone_the_scale_may_be_the_inverse(name, tmp_path):
    """diffusers' other pipelines do not look at invert_scale_latents."""
    fixture = fixtures.make(case_of(name))
    model = shutil.copytree(fixture.model, tmp_path / "model")
    rewrite(model / "vae" / "config.json", invert_scale_latents=True)
    assert np.abs(kino_render.render(str(model), read_request(fixture)) - fixture.frames("untiled")).max() <= 1e-4


def test_a_control_checkpoint_may_name_the_plain_pipeline(tmp_path):
    """As CogVideoX-Fun's do."""
    fixture = fixtures.make(case_of("cogvideox-control-0"))
    model = shutil.copytree(fixture.model, tmp_path / "model")
    rewrite(model / "model_index.json", _class_name="CogVideoXPipeline")
    got = kino_render.render(str(model), fixture.request("untiled"))
    assert np.abs(got - fixture.frames("untiled")).max() <= 1e-4


class RememberingDpm(CogVideoXDPMScheduler):
    """For a pipeline that steps it as it steps any other, as CogVideoXFunControlPipeline does, which then raises: keeps
    what CogVideoXPipeline hands from one step to the next."""

    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.last = None, None  # prediction and timestep

    def step(self, model_output, timestep, sample, eta=0.0, generator=None, return_dict=False):
        stepped, denoised = super().step(model_output, self.last[0], timestep, self.last[1], sample, eta=eta, generator=generator,
                                         return_dict=False)
        self.last = denoised, timestep
        return (stepped,)


@pytest.mark.parametrize("variant", range(4))
def test_a_control_video_steps_with_dpm_as_text_does(variant, pytestconfig):
    """diffusers raises at it."""
    fixture = fixtures.make(case_of(f"cogvideox-control-{variant}"))
    with open(os.path.join(fixture.folder, "request.json"), encoding="utf-8") as file:
        request = json.load(file)
    pipeline = load_pipeline(fixture.folder, request, torch.float32)
    config = pipeline.scheduler.config
    pipeline.scheduler = CogVideoXDPMScheduler.from_config(config)
    with pytest.raises(TypeError):
        run(pipeline, request, fixture.folder, "np")
    pipeline.scheduler = RememberingDpm.from_config(config)
    want = np.asarray(run(pipeline, request, fixture.folder, "np")[0])
    got = kino_render.render(fixture.model, read_request(fixture, scheduler=2))
    error, moved = (float(np.abs(got - other).max()) for other in (want, fixture.frames("untiled")))
    pytestconfig.kino_note(f"cogvideox-control-{variant} with DPM: frames max abs error {error:.2e} (with DDIM {moved:.2e})")
    assert error <= 1e-4 < 1e-3 < moved


@pytest.mark.parametrize("name, change, says", [
    ("cogvideox-i2v-0", {"height": 48}, "positions for 64"),
    ("cogvideox-t2v-2", {"width": 112}, "positions for at most 96"),
    ("cogvideox-t2v-0", {"cogvideox": {"max_sequence_length": 30}}, "cogvideox.max_sequence_length"),
    ("cogvideox-v2v-2", {"num_frames": 9}, "multiple of 2"),
    ("cogvideox-v2v-0", {"num_frames": 14}, "13 frames, expected at most"),
    ("cogvideox-v2v-0", {"num_inference_steps": 1}, "leave none to run"),
    ("cogvideox-v2v-0", {"conditions": []}, "exactly one VIDEO"),
    ("cogvideox-v2v-0", {"plan": {"vae_tiling": {"tile_sample_min_height": 56, "tile_sample_min_width": 56}}}, "latents"),
    ("cogvideox-t2v-0", {"num_inference_steps": 0}, "num_inference_steps"),
])
def test_what_diffusers_fails_at_is_refused(name, change, says):
    fixture = fixtures.make(case_of(name))
    with pytest.raises(RuntimeError, match=says):
        kino_render.render(fixture.model, {**read_request(fixture), **change})


@pytest.mark.parametrize("name", ["cogvideox-t2v-0", "cogvideox-t2v-1", "cogvideox-i2v-2", "cogvideox-v2v-3", "cogvideox-control-0"])
def test_bfloat16_draws_the_noise_of_diffusers_bfloat16(name, pytestconfig):
    """Noise is drawn in the type of the text states: another sequence than float32's, so the frames are of another video."""
    fixture = fixtures.make(case_of(name))
    theirs = fixture.diffusers_frames(torch.bfloat16)
    got = kino_render.render(fixture.model, fixture.request("untiled"), dtype="bfloat16")
    psnr, other = compare.psnr(theirs, got), compare.psnr(theirs, fixture.frames("untiled"))
    pytestconfig.kino_note(f"{name}: PSNR {psnr:.1f} dB to diffusers' bfloat16, {other:.1f} dB from that to float32")
    # Two ways of rounding the same video.
    assert psnr >= 30
    assert other < 20
