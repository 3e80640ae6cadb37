"""Every published config, built from its config alone: kino-render plan loads a folder whose weight files are
headers of what diffusers' class has on its meta device (and holes where the bytes would be), so a parameter that Kino
names or shapes otherwise, or does not have, is an error. The trace's FLOPs are held to the bound of the real shape."""
import json
import os
import shutil
import struct
import subprocess
import time

import pytest
import torch
from diffusers import (AllegroTransformer3DModel, AutoencoderKLAllegro, AutoencoderKLCogVideoX, AutoencoderKLLTXVideo,
                       AutoencoderKLMochi, CogVideoXTransformer3DModel, LTXVideoTransformer3DModel, MochiTransformer3DModel)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from transformers import T5Config, T5EncoderModel

import kino_render

DEMO = os.path.join(os.environ["KINO_SOURCE_DIR"], "models", "demo")
T5_XXL = dict(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
TRANSFORMERS = {
    "2b": dict(num_layers=28, num_attention_heads=32, attention_head_dim=64, cross_attention_dim=2048),
    "13b": dict(num_layers=48, num_attention_heads=32, attention_head_dim=128, cross_attention_dim=4096),
}
_V091 = dict(decoder_block_out_channels=(256, 512, 1024), decoder_layers_per_block=(5, 6, 7, 8),
             decoder_spatio_temporal_scaling=(True, True, True), decoder_inject_noise=(True, True, True, False),
             upsample_residual=(True, True, True), upsample_factor=(2, 2, 2), timestep_conditioning=True)
_V095 = dict(block_out_channels=(128, 256, 512, 1024, 2048), down_block_types=("LTXVideo095DownBlock3D",) * 4,
             spatio_temporal_scaling=(True,) * 4, layers_per_block=(4, 6, 6, 2, 2),
             downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
             decoder_block_out_channels=(256, 512, 1024), decoder_layers_per_block=(5, 5, 5, 5),
             decoder_spatio_temporal_scaling=(True, True, True), decoder_inject_noise=(False,) * 4,
             upsample_residual=(True, True, True), upsample_factor=(2, 2, 2), timestep_conditioning=True,
             spatial_compression_ratio=32, temporal_compression_ratio=8)
# Release: what makes its transformer and its VAE.
PUBLISHED = {name: (lambda size=size: LTXVideoTransformer3DModel(**TRANSFORMERS[size]),
                    lambda vae=vae: AutoencoderKLLTXVideo(**vae))
             for name, size, vae in (("0.9.0", "2b", {}), ("0.9.1", "2b", _V091), ("0.9.5", "2b", _V095),
                                     ("0.9.7-13b", "13b", _V095))}
PUBLISHED["mochi-1"] = (MochiTransformer3DModel, AutoencoderKLMochi)
PUBLISHED["allegro"] = (AllegroTransformer3DModel, AutoencoderKLAllegro)


def index(pipeline, scheduler, transformer, vae, **more):
    return {"_class_name": pipeline, "scheduler": ["diffusers", scheduler], "tokenizer": ["transformers", "T5TokenizerFast"],
            "text_encoder": ["transformers", "T5EncoderModel"], "transformer": ["diffusers", transformer],
            "vae": ["diffusers", vae], **more}


# model_index.json and the scheduler's config, where they are not the demo model's.
INDEX = {
    "mochi-1": (index("MochiPipeline", "FlowMatchEulerDiscreteScheduler", "MochiTransformer3DModel", "AutoencoderKLMochi",
                      force_zeros_for_empty_prompt=False), {"invert_sigmas": True, "shift": 1.0}),
    "allegro": (index("AllegroPipeline", "EulerAncestralDiscreteScheduler", "AllegroTransformer3DModel", "AutoencoderKLAllegro"),
                {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "timestep_spacing": "linspace"}),
}
# CogVideoX: what its transformer is made of, its scaling factor, its pipeline, and the samples' size.
_5B = dict(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True)
_V15 = dict(**_5B, patch_size_t=2, patch_bias=False, sample_height=300, sample_width=300, sample_frames=81)
COGVIDEOX = {
    "cogvideox-2b": (dict(), 1.15258426, "CogVideoXPipeline"),
    "cogvideox-5b": (_5B, 0.7, "CogVideoXPipeline"),
    "cogvideox-5b-i2v": (dict(**_5B, in_channels=32, use_learned_positional_embeddings=True), 0.7,
                         "CogVideoXImageToVideoPipeline"),
    "cogvideox-1.5-5b": (_V15, 0.7, "CogVideoXPipeline"),
    "cogvideox-1.5-5b-i2v": (dict(**_V15, in_channels=32, ofs_embed_dim=512), 0.7, "CogVideoXImageToVideoPipeline"),
    "cogvideox-fun-5b-control": (dict(**_5B, in_channels=32), 0.7, "CogVideoXPipeline"),
}
PUBLISHED.update({name: (lambda config=config: CogVideoXTransformer3DModel(**config),
                         lambda scaling=scaling: AutoencoderKLCogVideoX(scaling_factor=scaling))
                  for name, (config, scaling, _) in COGVIDEOX.items()})
INDEX.update({name: (index(pipeline, "CogVideoXDDIMScheduler", "CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX"),
                     {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True})
              for name, (_, _, pipeline) in COGVIDEOX.items()})
REQUEST = {"prompt": "a cat walks along a wall " * 20, "negative_prompt": "worst quality, blurry", "seed": 1,
           "guidance_scale": 3.0, "num_inference_steps": 50, "fps": 25}
# TFLOP of one step with guidance, and of the decode: PERFORMANCE figures of the real shape, 480x704x161.
STEP_2B, DECODE_090, DECODE_091 = 68.0, 47.0, 77.0


def write_weights(module, path, dtype="BF16", size=2):
    """A safetensors file with this state's names and shapes and a hole for its bytes."""
    header, offset = {}, 0
    for name, tensor in module.state_dict().items():
        end = offset + tensor.numel() * size
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def write_component(folder, name, module):
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "config.json"), "w", encoding="utf-8") as file:
        config = dict(module.config) if name != "text_encoder" else json.loads(module.config.to_json_string(False))
        json.dump({**config, "_class_name": type(module).__name__}, file)
    stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
    write_weights(module, os.path.join(folder, name, f"{stem}.safetensors"))


@pytest.fixture(scope="module", name="text_encoder")
def _text_encoder():
    with torch.device("meta"):
        return T5EncoderModel(T5Config(**T5_XXL))


def make(folder, release, text_encoder):
    with torch.device("meta"):
        transformer, vae = (build() for build in PUBLISHED[release])
    shutil.copy(os.path.join(DEMO, "model_index.json"), folder)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(os.path.join(DEMO, part), os.path.join(folder, part))
    if release in INDEX:
        model_index, scheduler = INDEX[release]
        for name, content in (("model_index.json", model_index),
                              ("scheduler/scheduler_config.json", {"_class_name": model_index["scheduler"][1], **scheduler})):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                json.dump(content, file)
    for name, module in (("transformer", transformer), ("vae", vae), ("text_encoder", text_encoder)):
        write_component(folder, name, module)
    return folder


def plan(folder, *flags, request=REQUEST, **fields):
    path = os.path.join(folder, "request.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**request, **fields}, file)
    start = time.monotonic()
    done = subprocess.run([kino_render.binary(), "plan", "--model", folder, "--request", path, "--dtype", "bfloat16", "--json",
                           "--offload", "none", "--weights-home", "file", "--vae-tile-size", "4096,4096,4096,4096",
                           "--chunk-feed-forward", "1000000", *flags], env=kino_render.environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout[:500]
    print(f"{time.monotonic() - start:.2f} s with the start of the process")
    return json.loads(done.stdout)["plans"][0]


def shape(release):
    """What is asked of it: a size that it has positions for, and its condition."""
    if release not in COGVIDEOX:
        return dict(height=512, width=768, num_frames=121)
    kind = "IMAGE" if "i2v" in release else "CONTROL_VIDEO" if "control" in release else None
    conditions = dict(conditions=[{"kind": kind, "path": "absent"}]) if kind else {}
    return dict(height=480, width=720, num_frames=49, **conditions)


@pytest.mark.parametrize("release", PUBLISHED)
def test_names_and_shapes_are_diffusers(release, text_encoder, tmp_path):
    folder = make(str(tmp_path), release, text_encoder)
    stages = {stage["stage"]: stage for stage in plan(folder, **shape(release))["stages"]}
    with_media = {"ENCODE_MEDIA"} if "conditions" in shape(release) else set()
    assert set(stages) == {"ENCODE_TEXT", "DENOISE", "DECODE"} | with_media
    # A shape that is not the config's is seen.
    with open(os.path.join(folder, "transformer", "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["num_layers"] += 1
    with open(os.path.join(folder, "transformer", "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    with pytest.raises(AssertionError, match="missing"):
        plan(folder, **shape(release))


# ltxv-spatial-upscaler-0.9.7 is the class's default; ltxv-temporal-upscaler-0.9.7 is as wide.
UPSAMPLERS = {"spatial": {}, "temporal": dict(spatial_upsample=False, temporal_upsample=True)}


@pytest.mark.parametrize("kind", UPSAMPLERS)
def test_names_and_shapes_of_latent_upsamplers_are_diffusers(kind, tmp_path):
    folder = str(tmp_path)
    with torch.device("meta"):
        upsampler, vae = LTXLatentUpsamplerModel(**UPSAMPLERS[kind]), AutoencoderKLLTXVideo(**_V095)
    for name, module in (("latent_upsampler", upsampler), ("vae", vae)):
        write_component(folder, name, module)
    with open(os.path.join(folder, "model_index.json"), "w", encoding="utf-8") as file:
        json.dump({"_class_name": "LTXLatentUpsamplePipeline", "latent_upsampler": ["ltx", "LTXLatentUpsamplerModel"],
                   "vae": ["diffusers", "AutoencoderKLLTXVideo"]}, file)
    request = {"task": "UPSCALE", "conditions": [{"kind": "VIDEO", "path": "absent"}], "seed": 1, "height": 512, "width": 768,
               "num_frames": 121}
    stages = {stage["stage"]: stage for stage in plan(folder, request=request)["stages"]}
    assert set(stages) == {"ENCODE_MEDIA", "UPSCALING", "DECODE"}
    # Two operations for each weight of a convolution at each place that it gives: 16 frames of 16x24 latents before.
    small, large = 16 * 16 * 24, (31 * 16 * 24 if kind == "temporal" else 16 * 32 * 48)
    places = {"initial_conv": small, "res_blocks": small, "upsampler": small, "post_upsample_res_blocks": large, "final_conv": large}
    flops = sum(2 * places[name.split(".")[0]] * weight.numel() for name, weight in upsampler.state_dict().items() if weight.ndim > 1)
    assert stages["UPSCALING"]["flops"] == pytest.approx(flops, rel=0.01)
    # A shape that is not the config's is seen.
    path = os.path.join(folder, "latent_upsampler", "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**config, "num_blocks_per_stage": 5}, file)
    with pytest.raises(AssertionError, match="missing"):
        plan(folder, request=request)


@pytest.mark.parametrize("release, decode", [("0.9.0", DECODE_090), ("0.9.1", DECODE_091)])
def test_flops_of_the_real_shape(release, decode, text_encoder, tmp_path):
    folder = make(str(tmp_path), release, text_encoder)
    stages = {stage["stage"]: stage for stage in
              plan(folder, "--device", "cuda:0", height=480, width=704, num_frames=161)["stages"]}
    step = stages["DENOISE"]["flops"] / REQUEST["num_inference_steps"] / 1e12
    print(f"step {step:.2f} TFLOP, decode {stages['DECODE']['flops'] / 1e12:.2f} TFLOP")
    assert step == pytest.approx(STEP_2B, rel=0.02)
    assert stages["DECODE"]["flops"] / 1e12 == pytest.approx(decode, rel=0.02)


# TFLOP of one step with guidance at 480x848x163: PERFORMANCE figures of the real shape.
STEP_MOCHI = 3335.0


def test_flops_of_mochis_real_shape(text_encoder, tmp_path):
    folder = make(str(tmp_path), "mochi-1", text_encoder)
    stages = {stage["stage"]: stage for stage in
              plan(folder, "--device", "cuda:0", height=480, width=848, num_frames=163)["stages"]}
    step = stages["DENOISE"]["flops"] / REQUEST["num_inference_steps"] / 1e12
    print(f"step {step:.0f} TFLOP, decode {stages['DECODE']['flops'] / 1e12:.0f} TFLOP")
    assert step == pytest.approx(STEP_MOCHI, rel=0.02)
