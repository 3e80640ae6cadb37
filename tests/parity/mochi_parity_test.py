"""Mochi-1 against diffusers, float32 on the CPU: the plain variants, untiled and tiled, and what they leave out."""
import torch

import parity_check
import fixtures
from fixtures import Case
from oracle.build import Changes

LONG_PROMPT = ("An old sailor, his white beard lit by the low sun, turns slowly to the camera while a flock of birds "
               "drifts across the water behind a wooden bridge; soft shadows, warm tones, handheld camera. ") * 3


def each_convention(name, tilings=None, **changes):
    extra = {"tilings": tilings} if tilings else {}
    return [Case(f"mochi-{name}-{variant}", "t2v", variant, Changes(**changes), family="mochi", **extra)
            for variant in range(2)]


CASES = [
    *fixtures.matrix("mochi"),
    *each_convention("no_guidance", call={"guidance_scale": 1.0}),
    *each_convention("one_frame", call={"num_frames": 1}),
    *each_convention("other_frames", call={"num_frames": 12, "height": 32, "width": 32}),  # 7 come out
    *each_convention("two_steps", call={"num_inference_steps": 2}),
    # 9 latent frames: several runs of frames in each layer of the decoder.
    *each_convention("long", call={"num_frames": 49, "height": 32, "width": 32}),
    *each_convention("wide", call={"num_frames": 7, "height": 16, "width": 144}),
    *each_convention("uneven_tiles", call={"num_frames": 7, "height": 80, "width": 64}, tilings={
        "uneven": dict(tile_sample_min_height=48, tile_sample_min_width=32, tile_sample_stride_height=32,
                       tile_sample_stride_width=24),
        "defaults": {}}),
    *each_convention("empty_prompt", prompt=""),
    *each_convention("empty_negative", negative_prompt=""),
    *each_convention("both_empty", prompt="", negative_prompt=""),
    *each_convention("cut_prompt", prompt=LONG_PROMPT * 4),
    Case("mochi-variant_bf16", "t2v", 0, Changes(weights_variant="bf16", weights_dtype=torch.bfloat16), family="mochi"),
    Case("mochi-shards", "t2v", 1, Changes(max_shard_size="60KB"), family="mochi"),
]


def facts(case, tiling):
    option = case.name.removesuffix(f"-{case.variant}")
    return [("option", option), ("tiling", option, tiling), ("convention", option, case.generation)]


@parity_check.parametrize(CASES, facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)
