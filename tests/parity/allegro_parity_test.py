"""Allegro against diffusers, float32 on the CPU: the plain variants, captions that are cleaned or not, and videos that
diffusers' tiles do not cover, which come out grey there and are held against a decode that covers them."""
import json
import os

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLAllegro

import compare
import fixtures
import kino_render
import parity_check
from fixtures import Case
from oracle.build import Changes

AWKWARD_PROMPT = "A Paper BOAT &amp; an old sailor <b>drift</b>, 4K!! see https://example.com #123 ﬁne—light “soft” 1920x1080"
LONG_PROMPT = "Two dancers turn to the camera while a flock of birds drifts across the water; soft shadows. " * 12
FRAMES_TOLERANCE = 1e-4


def variants(name, numbers=(0, 1), **changes):
    return [Case(f"allegro-{name}-{variant}", "t2v", variant, Changes(**changes), family="allegro") for variant in numbers]


CASES = [
    *fixtures.matrix("allegro"),
    *variants("cleaned", prompt=AWKWARD_PROMPT, negative_prompt="BLURRY; see www.example.com"),
    *variants("not_cleaned", (0,), prompt=AWKWARD_PROMPT, call={"clean_caption": False}),
    *variants("no_guidance", (0,), call={"guidance_scale": 1.0}),
    *variants("cut_prompt", (0,), prompt=LONG_PROMPT, call={"max_sequence_length": 64}),
    *variants("empty_prompts", (0,), prompt="", negative_prompt=""),
    # A number of frames that is not the VAE's: the last ones are left out. Of odd ones a latent frame more is made than needed.
    *variants("odd_frames", (1,), call={"num_frames": 35}),
    *variants("two_steps", (0,), call={"num_inference_steps": 2}),
]


def facts(case, tiling):
    option = case.name.removesuffix(f"-{case.variant}")
    return [("option", option), ("tiles in time", case.generation)]


@parity_check.parametrize(CASES, facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)


def ramps(length, size, stride):
    """[(begin, end, weights)] of tiles that cover an axis: whole ones, and one that ends where the axis does."""
    spans, overlap = [(0, min(size, length))], size - stride
    while spans[-1][1] < length:
        end = min(spans[-1][1] + stride, length)
        spans.append((end - size, end))
    tiles = []
    for index, (begin, end) in enumerate(spans):
        weights = torch.ones(end - begin)
        if index > 0:
            first = spans[index - 1][1] - overlap - begin
            weights[:first] = 0
            weights[first:first + overlap] *= torch.arange(overlap) / overlap
        if index + 1 < len(spans):
            weights[-overlap:] *= 1 - torch.arange(overlap) / overlap
        tiles.append((begin, end, weights))
    return tiles


def covering_decode(vae, latents, frames):
    """[T, H, W, 3] in 0..1."""
    ratio, time_ratio = vae.spatial_compression_ratio, vae.config.temporal_compression_ratio
    axes = [ramps(count * per, size, stride) for count, per, size, stride in
            zip(latents.shape[2:], (time_ratio, ratio, ratio), vae.kernel, vae.stride)]
    z = vae.post_quant_conv(latents[0].permute(1, 0, 2, 3)).permute(1, 0, 2, 3)[None]
    video = torch.zeros(1, 3, *(tiles[-1][1] for tiles in axes))
    for t0, t1, t_weights in axes[0]:
        for y0, y1, y_weights in axes[1]:
            for x0, x1, x_weights in axes[2]:
                tile = vae.decoder(z[:, :, t0 // time_ratio:t1 // time_ratio, y0 // ratio:y1 // ratio, x0 // ratio:x1 // ratio])
                weights = t_weights[:, None, None] * y_weights[:, None] * x_weights
                video[:, :, t0:t1, y0:y1, x0:x1] += tile * weights
    return as_frames(video, frames)


def as_frames(video, frames):
    return (video / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 3, 0)[:frames].numpy()


# Height, width, frames; the first frames, rows and columns, in which diffusers is right. It refuses a single frame.
UNCOVERED = {
    "smaller than a tile": ((96, 112, 9), (0, 0, 0)),
    "one frame": ((160, 160, 1), None),
    "a rest in time": ((160, 160, 32), (16, 160, 160)),
    "a rest of columns": ((160, 272, 24), (24, 160, 160)),
    "a rest of rows": ((176, 160, 24), (24, 40, 160)),
}


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_diffusers_leaves_grey_is_a_picture(name, tmp_path, pytestconfig):
    (height, width, frames), right = UNCOVERED[name]
    fixture = fixtures.make(CASES[0])
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = {**json.load(file), "height": height, "width": width, "num_frames": frames}
    path, taps = str(tmp_path / "request.json"), str(tmp_path / "taps")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(request, file)
    got = kino_render.render(fixture.model, path, taps=taps)
    latents = torch.from_numpy(np.load(os.path.join(taps, "latents.npy")))
    vae = AutoencoderKLAllegro.from_pretrained(os.path.join(fixture.model, "vae")).eval()
    vae.enable_tiling()
    with torch.no_grad():
        want = covering_decode(vae, latents, frames)
    assert got.shape == want.shape == (frames, height, width, 3)
    worst = np.abs(got - want).max()
    pytestconfig.kino_note(f"{name}: frames max abs error {worst:.2e}")
    assert worst <= FRAMES_TOLERANCE
    assert got.std() > 0.02
    if right is None:
        return
    with torch.no_grad():  # decode gives frames before channels
        theirs = as_frames(vae.decode(latents).sample.transpose(1, 2), frames)
    part = tuple(slice(end) for end in right)
    assert np.abs(got[part] - theirs[part]).max(initial=0) <= FRAMES_TOLERANCE
    assert np.abs(got - theirs).max() > FRAMES_TOLERANCE


@pytest.mark.parametrize("variant", range(2))
def test_noise_is_drawn_in_the_prompts_type(variant, pytestconfig):
    """bfloat16 draws are other numbers than float32's, so frames are near diffusers' in bfloat16 and in no other type."""
    fixture = fixtures.make(CASES[variant])
    theirs = fixture.diffusers_frames(torch.bfloat16)
    ours = kino_render.render(fixture.model, fixture.request("untiled"), dtype="bfloat16")
    near, far = compare.psnr(theirs, ours), compare.psnr(fixture.frames("untiled"), ours)
    pytestconfig.kino_note(f"{CASES[variant].name}: {near:.1f} dB from diffusers in bfloat16, {far:.1f} dB from float32")
    assert near > 30 > far


def test_tiles_may_have_other_sizes(tmp_path, pytestconfig):
    """diffusers' are fixed in its class."""
    fixture = fixtures.make(CASES[0])
    tiles = {"num_frames": (16, 12), "height": (64, 48), "width": (96, 72)}
    tiling = {f"tile_sample_{what}_{axis}": size for axis, pair in tiles.items() for what, size in zip(("min", "stride"), pair)}
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = {**json.load(file), "height": 128, "width": 160, "num_frames": 24}
    usual = kino_render.render(fixture.model, request)
    got = kino_render.render(fixture.model, {**request, "plan": {"vae_tiling": tiling}}, taps=str(tmp_path))
    vae = AutoencoderKLAllegro.from_pretrained(os.path.join(fixture.model, "vae")).eval()
    vae.kernel, vae.stride = zip(*tiles.values())
    with torch.no_grad():
        want = covering_decode(vae, torch.from_numpy(np.load(tmp_path / "latents.npy")), 24)
    worst, moved = np.abs(got - want).max(), np.abs(got - usual).max()
    pytestconfig.kino_note(f"smaller tiles: frames max abs error {worst:.2e} (to the usual ones {moved:.2e})")
    assert worst <= FRAMES_TOLERANCE < moved


def test_tiles_of_which_more_than_two_meet_are_refused(tmp_path):
    fixture = fixtures.make(CASES[0])
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = {**json.load(file), "plan": {"vae_tiling": {"tile_sample_min_height": 160, "tile_sample_stride_height": 72}}}
    path = str(tmp_path / "request.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(request, file)
    with pytest.raises(RuntimeError, match="at least half of the tile's 160, got 72"):
        kino_render.render(fixture.model, path)
