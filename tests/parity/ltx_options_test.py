"""LTX-Video against diffusers, float32 on the CPU: what the plain variants leave out.

Cases end in -0, -1 or -2 for the VAE generation (0.9.0, 0.9.1, 0.9.5); see fixtures for the plain matrix.
"""
import json
import os
import shutil

import numpy as np
import torch

import fixtures
import kino_render
import parity_check
from fixtures import Case
from oracle.build import Changes
from oracle.families.ltx import small_tiles

LONG_PROMPT = ("An old sailor, his white beard lit by the low sun, turns slowly to the camera while a flock of birds "
               "drifts across the water behind a wooden bridge; soft shadows, warm tones, handheld camera. ") * 3


def each_generation(name, task="t2v", tilings=None, **changes):
    extra = {"tilings": tilings} if tilings else {}
    return [Case(f"{name}-{task}-{generation}", task, generation, Changes(**changes), **extra)
            for generation in range(3)]


def framewise(**tiles):
    return dict(tile_sample_min_num_frames=16, tile_sample_stride_num_frames=8, framewise=True,
                **tiles)


CASES = [
    *each_generation("no_guidance", call={"guidance_scale": 1.0}),
    *each_generation("no_guidance", "i2v", call={"guidance_scale": 1.0}),
    *each_generation("guidance_rescale", call={"guidance_rescale": 0.6}),
    *each_generation("timesteps", schedule={"timesteps": [1000.0, 760.0, 410.5, 90.0]}),
    *each_generation("sigmas", schedule={"sigmas": [1.0, 0.83, 0.4, 0.07]}),
    *each_generation("sigmas", "i2v", schedule={"sigmas": [1.0, 0.5, 0.25]}),
    *each_generation("one_frame", call={"num_frames": 1}),
    *each_generation("one_frame", "i2v", call={"num_frames": 1}),
    # 8 * k + 1 come out.
    *each_generation("other_frames", call={"num_frames": 14, "height": 32, "width": 64}),
    *each_generation("other_frames", "i2v", call={"num_frames": 16, "height": 32, "width": 64}),
    *each_generation("two_steps", call={"num_inference_steps": 2, "frame_rate": 30}),
    # One step with shift_terminal is 0 / 0 in diffusers' sampler; the 0.9.5 schedule has none.
    Case("one_step-t2v-2", "t2v", 2, Changes(call={"num_inference_steps": 1})),
    # 7 and 13 latent frames: several chunks of a streaming decode.
    *each_generation("long", call={"num_frames": 49, "height": 64, "width": 64}),
    *each_generation("longer", "i2v", call={"num_frames": 97, "height": 32, "width": 64}),
    *each_generation("smallest", call={"num_frames": 9, "height": 32, "width": 32}),
    *each_generation("wide", "i2v", call={"num_frames": 9, "height": 32, "width": 192}),
    *each_generation("spatial_tiles", tilings={
        "uneven": dict(tile_sample_min_height=96, tile_sample_min_width=64,
                       tile_sample_stride_height=64, tile_sample_stride_width=32),
        "defaults": {}},
        call={"num_frames": 17, "height": 160, "width": 96}),
    *each_generation("framewise", tilings={
        "time": framewise(), "time_and_space": framewise(**small_tiles())},
        call={"num_frames": 41, "height": 96, "width": 64}),
    *each_generation("default_decode", call={"decode_timestep": None, "decode_noise_scale": None}),
    *each_generation("decode_noise_absent",
                     call={"decode_timestep": 0.08, "decode_noise_scale": None}),
    Case("sequence_64", "t2v", 0, Changes(call={"max_sequence_length": 64}, prompt=LONG_PROMPT)),
    Case("sequence_200", "i2v", 1, Changes(call={"max_sequence_length": 200}, prompt=LONG_PROMPT)),
    Case("cut_prompt", "t2v", 1, Changes(prompt=LONG_PROMPT)),
    Case("empty_negative", "t2v", 0, Changes(negative_prompt="")),
    Case("empty_prompt", "t2v", 1, Changes(prompt="")),
    Case("awkward_prompt", "t2v", 2, Changes(
        prompt="Café – naïve “quotes” ①②, 東京 \U0001f984 ﬁn </s> e\u0301\u200d\u00a0\tend")),
    Case("spiece_only", "t2v", 0, Changes(drop_tokenizer_json=True)),
    Case("variant_bf16", "t2v", 0, Changes(weights_variant="bf16",
                                           weights_dtype=torch.bfloat16)),
    Case("variant_fp16", "i2v", 2, Changes(weights_variant="fp16", weights_dtype=torch.float16)),
    Case("shards", "t2v", 1, Changes(max_shard_size="60KB")),
    Case("shards_bf16", "i2v", 0, Changes(max_shard_size="40KB", weights_variant="bf16",
                                          weights_dtype=torch.bfloat16)),
    Case("big_seed", "t2v", 1, seed=2**52 + 12345),
]


def facts(case, tiling):
    option = case.name.removesuffix(f"-{case.task}-{case.generation}")
    return [("option", option, case.task), ("tiling", option, tiling), ("generation", case.task, case.generation)]


@parity_check.parametrize(CASES, facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)


def test_temporal_tile_size_asks_any_folder_for_a_long_video(tmp_path):
    """The same frames as of a folder that names LTXI2VLongMultiPromptPipeline, once the call's defaults are that class's."""
    fixture = fixtures.make(next(case for case in fixtures.matrix() if case.name == "long-3"))
    model = str(tmp_path / "model")
    shutil.copytree(fixture.model, model)
    with open(os.path.join(model, "model_index.json"), "r+", encoding="utf-8") as file:
        index = json.load(file)
        index["_class_name"] = "LTXImageToVideoPipeline"
        file.seek(0)
        file.truncate()
        json.dump(index, file)
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = json.load(file)
    assert request["ltx"]["temporal_tile_size"] and "guidance_scale" not in request
    request["guidance_scale"] = 1.0
    request["conditions"][0]["path"] = os.path.join(fixture.folder, request["conditions"][0]["path"])
    got = kino_render.render(model, request)
    assert np.abs(got - fixture.frames("untiled")).max() <= 1e-4
