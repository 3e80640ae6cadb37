"""LTX-Video against diffusers, float32 on the CPU: every VAE generation, each of its pipelines, untiled and tiled; and
every kind of latent upsampler."""
import json
import shutil
import subprocess

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

import kino_render
import parity_check
import fixtures


def facts(case, tiling):
    if case.task == "upsample":
        return [(case.task, "generation", case.generation, tiling), (case.task, "kind", case.variant // 3, tiling)]
    # Of conditions and of long videos each case is about something else.
    return [(case.task, case.generation, tiling), *([(case.name,)] if case.task in ("condition", "long") else [])]


@parity_check.parametrize(fixtures.matrix(), facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)


@pytest.mark.parametrize("variant", [4, 7], ids=["temporal", "both"])
def test_an_upscaled_video_is_as_large_as_itself_by_default(variant):
    """Its own sizes, rounded down to what the VAE takes: here of a video with frames too many, and of another size."""
    fixture = fixtures.make(next(case for case in fixtures.matrix() if case.name == f"upsample-{variant}"))
    with open(fixture.request("untiled"), encoding="utf-8") as file:
        request = json.load(file)
    source = np.load(f"{fixture.folder}/input_video.npy")
    request["conditions"][0]["path"] = f"{fixture.folder}/input_video.npy"
    whole = dict(num_frames=(source.shape[0] - 1) // 8 * 8 + 1, height=source.shape[1] // 32 * 32, width=source.shape[2] // 32 * 32)
    want = kino_render.render(fixture.model, {**request, **whole})
    assert want.shape[0] == 2 * whole["num_frames"] - 1
    for field in whole:
        del request[field]
    np.testing.assert_array_equal(kino_render.render(fixture.model, request), want)


def test_the_mp4_is_as_large_as_what_comes_out(tmp_path):
    fixture = fixtures.make(next(case for case in fixtures.matrix() if case.name == "upsample-7"))
    out, stats = tmp_path / "out.mp4", tmp_path / "stats.json"
    subprocess.run([kino_render.binary(), "--model", fixture.model, "--request", fixture.request("untiled"), "--out", out, "--stats",
                    stats, "--quiet"], env=kino_render.environment(), check=True, timeout=300)
    shown = subprocess.run(["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames,height,width", "-of",
                            "json", out], check=True, timeout=60, capture_output=True)
    stream = json.loads(shown.stdout)["streams"][0]
    want = fixture.frames("untiled").shape
    assert (int(stream["nb_read_frames"]), stream["height"], stream["width"]) == want[:3]
    with open(stats, encoding="utf-8") as file:
        result = json.load(file)
    assert [stage["stage"] for stage in result["stages"]] == ["load", "encode_media", "upscale", "decode", "mux"]


def test_norms_of_what_hardly_varies_are_those_of_diffusers(tmp_path):
    """So that what a norm adds to the variance shows."""
    case = next(case for case in fixtures.matrix() if case.name == "upsample-0")
    folder = tmp_path / "case"
    shutil.copytree(fixtures.make(case).folder, folder)
    weights = folder / "model" / "latent_upsampler" / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    for name in ("initial_conv", "res_blocks.0.conv1", "res_blocks.0.conv2"):
        tensors[f"{name}.weight"] *= 1e-3
    safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
    fixture = fixtures.Fixture(case, str(folder))
    want, got = fixture.diffusers_frames(torch.float32), kino_render.render(fixture.model, fixture.request("untiled"))
    assert np.abs(want - got).max() <= 1e-4


def test_an_upsampler_of_another_vae_is_refused_before_anything_runs(tmp_path):
    fixture = fixtures.make(next(case for case in fixtures.matrix() if case.name == "upsample-0"))
    model = shutil.copytree(fixture.model, tmp_path / "model")
    folder = model / "latent_upsampler"
    config = LTXLatentUpsamplerModel.load_config(folder)
    LTXLatentUpsamplerModel.from_config({**config, "in_channels": 2 * config["in_channels"]}).save_pretrained(folder)
    with pytest.raises(RuntimeError, match="the latent upsampler's in_channels"):
        kino_render.render(str(model), fixture.request("untiled"))
