"""Every published config, built from its config alone: kino-render plan loads a folder whose weight files are
headers of what diffusers' class has on its meta device (and holes where the bytes would be), so a parameter that Kino
names or shapes otherwise, or does not have, is an error. The trace's FLOPs are held to the bound of the real shape."""
import dataclasses
import json
import os
import random
import shutil
import struct
import subprocess
import time
import typing

import pytest
import torch
from diffusers import (AllegroTransformer3DModel, AutoencoderKLAllegro, AutoencoderKLCogVideoX, AutoencoderKLHunyuanVideo,
                       AutoencoderKLLTXVideo, AutoencoderKLMochi, CogVideoXTransformer3DModel,
                       HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel, LTXVideoTransformer3DModel,
                       MochiTransformer3DModel)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, LlamaConfig, LlamaModel, LlavaConfig,
                          LlavaForConditionalGeneration, PreTrainedModel, SiglipVisionConfig, SiglipVisionModel, T5Config,
                          T5EncoderModel)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import kino_render
from oracle.text import clip, llama_tokenizer

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

def index(pipeline, scheduler, transformer, vae, **more):
    return {"_class_name": pipeline, "scheduler": ["diffusers", scheduler], "tokenizer": ["transformers", "T5TokenizerFast"],
            "text_encoder": ["transformers", "T5EncoderModel"], "transformer": ["diffusers", transformer],
            "vae": ["diffusers", vae], **more}


@dataclasses.dataclass
class Release:
    """A published folder: what makes its networks, its model_index.json and scheduler, and the type of its weight files."""
    transformer: typing.Callable
    vae: typing.Callable
    index: dict
    scheduler: dict
    dtype: str = "BF16"
    # Beside its files there are bfloat16 ones, whose names have this in them.
    variant: str | None = None
    # What is asked of it: a size that it has positions for, and the kind of its condition.
    size: tuple = (512, 768, 121)
    condition: str | None = None
    # 1: a model that takes none.
    guidance_scale: float = 3.0
    # What makes its encoders; None: T5's alone.
    encoders: dict | None = None
    # The class that its transformer's config names, where that is none of diffusers'.
    transformer_class: str | None = None

    def request(self):
        height, width, num_frames = self.size
        conditions = {"conditions": [{"kind": self.condition, "path": "absent"}]} if self.condition else {}
        return dict(height=height, width=width, num_frames=num_frames, guidance_scale=self.guidance_scale, **conditions)


_FLOW = "FlowMatchEulerDiscreteScheduler"
_SHIFTED = dict(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
                shift_terminal=0.1)


def ltx(size, vae, scheduler, pipeline="LTXPipeline"):
    return Release(lambda: LTXVideoTransformer3DModel(**TRANSFORMERS[size]), lambda: AutoencoderKLLTXVideo(**vae),
                   index(pipeline, _FLOW, "LTXVideoTransformer3DModel", "AutoencoderKLLTXVideo"), scheduler)


def mochi(dtype, variant=None):
    return Release(MochiTransformer3DModel, AutoencoderKLMochi,
                   index("MochiPipeline", _FLOW, "MochiTransformer3DModel", "AutoencoderKLMochi", force_zeros_for_empty_prompt=False),
                   {"invert_sigmas": True, "shift": 1.0}, dtype, variant)


_5B = dict(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True)
_V15 = dict(**_5B, patch_size_t=2, patch_bias=False, sample_height=300, sample_width=300, sample_frames=81)
_2B_SCALING, _5B_SCALING = 1.15258426, 0.7


def cogvideox(config, scaling=_5B_SCALING, condition=None, pipeline="CogVideoXPipeline", **vae):
    return Release(lambda: CogVideoXTransformer3DModel(**config),
                   lambda: AutoencoderKLCogVideoX(scaling_factor=scaling, **vae),
                   index(pipeline, "CogVideoXDDIMScheduler", "CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX"),
                   {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True,
                    "snr_shift_scale": 3.0 if scaling == _2B_SCALING else 1.0},
                   dtype="F16" if scaling == _2B_SCALING and condition is None else "BF16", size=(480, 720, 49), condition=condition)


# LLaVA-LLaMA-3's text model; of its repository only the first pad token is among the config's.
def llama_config():
    return LlamaConfig(vocab_size=128320, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                       num_key_value_heads=8, max_position_embeddings=8192, rms_norm_eps=1e-5, bos_token_id=128000, eos_token_id=128001,
                       rope_parameters={"rope_type": "default", "rope_theta": 500000.0})


def llava():
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
                              patch_size=14, projection_dim=768)
    return LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=llama_config(), image_token_index=128257, pad_token_id=128258, projector_hidden_act="gelu",
        vision_feature_layer=-2, vision_feature_select_strategy="default"))


def clip_l():
    return CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                        num_attention_heads=12, projection_dim=768, bos_token_id=0, eos_token_id=2, pad_token_id=1))


def siglip():
    """so400m-patch14-384, as flux_redux_bfl has it."""
    return SiglipVisionModel(SiglipVisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
                                                image_size=384, patch_size=14))


HUNYUAN_ENCODERS = {"text_encoder": lambda: LlamaModel(llama_config()), "text_encoder_2": clip_l}
LLAVA_ENCODERS = {**HUNYUAN_ENCODERS, "text_encoder": llava}
PROCESSORS = {"image_processor": lambda: CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
              "feature_extractor": lambda: SiglipImageProcessorPil(size={"height": 384, "width": 384})}


def hunyuan(config, pipeline="HunyuanVideoPipeline", shift=7.0, encoders=None, kind=HunyuanVideoTransformer3DModel, **more):
    names = dict(tokenizer=["transformers", "LlamaTokenizerFast"], tokenizer_2=["transformers", "CLIPTokenizer"],
                 text_encoder_2=["transformers", "CLIPTextModel"])
    encoders = encoders or HUNYUAN_ENCODERS
    names["text_encoder"] = ["transformers", "LlavaForConditionalGeneration" if encoders is LLAVA_ENCODERS else "LlamaModel"]
    if encoders is LLAVA_ENCODERS:
        names["image_processor"] = ["transformers", "CLIPImageProcessor"]
    return Release(lambda: kind(**config), AutoencoderKLHunyuanVideo,
                   index(pipeline, _FLOW, "HunyuanVideoTransformer3DModel", "AutoencoderKLHunyuanVideo", **names),
                   {"shift": shift}, encoders=encoders, **more)


_PACKED = dict(has_clean_x_embedder=True, has_image_proj=True, image_proj_dim=1152)
_OF_IMAGE = dict(pipeline="HunyuanVideoImageToVideoPipeline", condition="IMAGE", encoders=LLAVA_ENCODERS)
_IMAGE = dict(condition="IMAGE", pipeline="CogVideoXImageToVideoPipeline")
PUBLISHED = {
    "ltx-0.9.0": ltx("2b", {}, _SHIFTED), "ltx-0.9.1": ltx("2b", _V091, _SHIFTED),
    # These differ in their weights alone.
    **{f"ltx-{name}": ltx(size, _V095, {"shift": 1.0}, "LTXConditionPipeline") for name, size in (
        ("0.9.5", "2b"), ("0.9.7-dev", "13b"), ("0.9.7-distilled", "13b"), ("0.9.8-2b-distilled", "2b"), ("0.9.8-13b-distilled", "13b"))},
    "mochi-1": mochi("F32"), "mochi-1-bf16": mochi("F32", "bf16"),
    "allegro": Release(AllegroTransformer3DModel, AutoencoderKLAllegro,
                       index("AllegroPipeline", "EulerAncestralDiscreteScheduler", "AllegroTransformer3DModel", "AutoencoderKLAllegro"),
                       {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "timestep_spacing": "linspace"}),
    "cogvideox-2b": cogvideox({}, _2B_SCALING),
    "cogvideox-5b": cogvideox(_5B),
    "cogvideox-5b-i2v": cogvideox(dict(**_5B, in_channels=32, use_learned_positional_embeddings=True), **_IMAGE),
    "cogvideox-1.5-5b": cogvideox(_V15),
    "cogvideox-1.5-5b-i2v": cogvideox(dict(**_V15, in_channels=32, ofs_embed_dim=512), invert_scale_latents=True, **_IMAGE),
    # CogVideoX-Fun's name the plain pipeline. Their Pose and Control differ in their weights alone.
    **{f"cogvideox-fun-v1.1-2b-{what}": cogvideox(dict(in_channels=32), _2B_SCALING, "CONTROL_VIDEO") for what in ("pose", "control")},
    **{f"cogvideox-fun-v1.1-5b-{what}": cogvideox(dict(**_5B, in_channels=32), condition="CONTROL_VIDEO") for what in ("pose", "control")},
    "hunyuan-video": hunyuan({}),
    "hunyuan-video-i2v": hunyuan(dict(image_condition_type="token_replace"), **_OF_IMAGE),
    "hunyuan-video-i2v-33ch": hunyuan(dict(in_channels=33, image_condition_type="latent_concat", guidance_embeds=False), guidance_scale=1.0,
                                      **_OF_IMAGE),
    "fast-hunyuan": hunyuan({}, shift=17.0),
    # Transformers alone, for the rest of HunyuanVideo's folder, whose index names the plain pipeline. FramePack's two differ in
    # their weights alone.
    "skyreels-v1-t2v": hunyuan({}),
    "skyreels-v1-i2v": hunyuan(dict(in_channels=32), condition="IMAGE"),
    **{name: hunyuan(_PACKED, kind=HunyuanVideoFramepackTransformer3DModel, condition="IMAGE",
                     transformer_class="HunyuanVideoTransformer3DModelPacked",
                     encoders={**HUNYUAN_ENCODERS, "image_encoder": siglip}) for name in ("framepack-i2v", "framepack-f1")},
}
REQUEST = {"prompt": "a cat walks along a wall " * 20, "negative_prompt": "worst quality, blurry", "seed": 1,
           "guidance_scale": 3.0, "num_inference_steps": 50, "fps": 25}
# One tile for all.
UNTILED = ("--vae-tile-size", "4096,4096,4096,4096")
TYPES = {"F32": 4, "F16": 2, "BF16": 2}


def write_weights(module, path, dtype):
    """A safetensors file with this state's names and shapes and a hole for its bytes."""
    header, offset = {}, 0
    for name, tensor in module.state_dict().items():
        end = offset + tensor.numel() * TYPES[dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def write_component(folder, name, module, dtype="BF16", variant=None, class_name=None):
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "config.json"), "w", encoding="utf-8") as file:
        is_encoder = isinstance(module, PreTrainedModel)
        config = json.loads(module.config.to_json_string(False)) if is_encoder else dict(module.config)
        json.dump({**config, "_class_name": class_name or type(module).__name__}, file)
    stem = "model" if is_encoder else "diffusion_pytorch_model"
    write_weights(module, os.path.join(folder, name, f"{stem}.safetensors"), dtype)
    if variant:
        write_weights(module, os.path.join(folder, name, f"{stem}.{variant}.safetensors"), "BF16")


@pytest.fixture(scope="module", name="text_encoder")
def _text_encoder():
    with torch.device("meta"):
        return T5EncoderModel(T5Config(**T5_XXL))


def make(folder, release, text_encoder):
    release = PUBLISHED[release]
    with torch.device("meta"):
        networks = {"transformer": release.transformer(), "vae": release.vae(), "text_encoder": text_encoder,
                    **{name: build() for name, build in (release.encoders or {}).items()}}
    if release.encoders is None:
        shutil.copytree(os.path.join(DEMO, "tokenizer"), os.path.join(folder, "tokenizer"))
    else:
        write_hunyuan_text(folder, networks)
    os.mkdir(os.path.join(folder, "scheduler"))
    for name, content in (("model_index.json", release.index),
                          ("scheduler/scheduler_config.json", {"_class_name": release.index["scheduler"][1], **release.scheduler})):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file)
    for name, module in networks.items():
        class_name = release.transformer_class if name == "transformer" else None
        write_component(folder, name, module, release.dtype, release.variant, class_name)
    return folder


def write_hunyuan_text(folder, networks):
    """Tokenizers of the right kind, if not the vocabulary, and what makes pixels of an image where an encoder sees it."""
    work = os.path.join(folder, "work")
    llama_tokenizer(work).save_pretrained(os.path.join(folder, "tokenizer"))
    clip(random.Random(1), work, 32)[0].save_pretrained(os.path.join(folder, "tokenizer_2"))
    shutil.rmtree(work)
    if isinstance(networks["text_encoder"], LlavaForConditionalGeneration):
        PROCESSORS["image_processor"]().save_pretrained(os.path.join(folder, "image_processor"))
    if "image_encoder" in networks:
        PROCESSORS["feature_extractor"]().save_pretrained(os.path.join(folder, "feature_extractor"))


def plan(folder, *flags, request=REQUEST, **fields):
    path = os.path.join(folder, "request.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**request, **fields}, file)
    start = time.monotonic()
    done = subprocess.run([kino_render.binary(), "plan", "--model", folder, "--request", path, "--dtype", "bfloat16", "--json",
                           "--offload", "none", "--weights-home", "file", "--chunk-feed-forward", "1000000",
                           *flags], env=kino_render.environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout[:500]
    print(f"{time.monotonic() - start:.2f} s with the start of the process")
    return json.loads(done.stdout)["plans"][0]


def stages_of(folder, *flags, **fields):
    return {stage["stage"]: stage for stage in plan(folder, *flags, **fields)["stages"]}


@pytest.mark.parametrize("release", PUBLISHED)
def test_names_and_shapes_are_diffusers(release, text_encoder, tmp_path):
    folder = make(str(tmp_path), release, text_encoder)
    published = PUBLISHED[release]
    flags = ["--device", "cuda:0", *UNTILED, *(["--variant", published.variant] if published.variant else [])]
    stages = stages_of(folder, *flags, **published.request())
    with_media = {"ENCODE_MEDIA"} if published.condition else set()
    assert set(stages) == {"ENCODE_TEXT", "DENOISE", "DECODE"} | with_media
    # A shape that is not the config's is seen.
    with open(os.path.join(folder, "transformer", "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["num_layers"] += 1
    with open(os.path.join(folder, "transformer", "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    with pytest.raises(AssertionError, match="missing"):
        plan(folder, *flags, **published.request())


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
    stages = {stage["stage"]: stage for stage in plan(folder, *UNTILED, request=request)["stages"]}
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
        plan(folder, *UNTILED, request=request)


# TFLOP of one step with guidance, of the decode, and of the decode in diffusers' own tiles: counted over diffusers' modules at
# these shapes. None: not counted. Allegro decodes in tiles only.
TFLOP = {
    ("ltx-0.9.0", (480, 704, 161)): (68, 47, 55),
    ("ltx-0.9.1", (480, 704, 161)): (68, 77, None),
    ("ltx-0.9.0", (512, 768, 121)): (58, None, None),
    ("ltx-0.9.0", (704, 1216, 121)): (171, None, None),
    ("cogvideox-2b", (480, 720, 49)): (240, 315, 441),
    ("cogvideox-5b", (480, 720, 49)): (664, 315, 441),
    ("cogvideox-1.5-5b", (768, 1360, 81)): (2958, 1572, None),
    ("mochi-1", (480, 848, 163)): (3335, 1081, 1782),
    ("mochi-1", (480, 848, 85)): (1206, None, None),
    ("allegro", (720, 1280, 88)): (4478, None, 2287),
    # Of the middle of its VAE diffusers computes what a mask then takes out, which is the more the larger a frame is.
    ("hunyuan-video", (512, 768, 121)): (2340, 1172, 1807),
    ("hunyuan-video", (720, 1280, 129)): (12069, None, 4770),
}


@pytest.mark.parametrize("release, size", TFLOP)
def test_flops_of_the_real_shape(release, size, text_encoder, tmp_path):
    folder = make(str(tmp_path), release, text_encoder)
    sizes = dict(zip(("height", "width", "num_frames"), size))
    step, decode, tiled = TFLOP[release, size]

    def counted(*flags):
        stages = stages_of(folder, "--device", "cuda:0", *flags, **sizes)
        return stages["DENOISE"]["flops"] / REQUEST["num_inference_steps"] / 1e12, stages["DECODE"]["flops"] / 1e12

    got = dict(zip(("step", "decode"), counted(*UNTILED)), tiled=counted("--vae-tiling")[1])
    print({what: f"{count:.2f} TFLOP" for what, count in got.items()})
    wanted = {what: count for what, count in (("step", step), ("decode", decode), ("tiled", tiled)) if count is not None}
    assert {what: got[what] for what in wanted} == pytest.approx(wanted, rel=0.02)


def test_without_tokenizers_prompts_count_as_the_longest_there_are(text_encoder, tmp_path):
    folder = make(str(tmp_path), "hunyuan-video", text_encoder)
    fields = dict(height=128, width=128, num_frames=5, prompt="red " * 1000, negative_prompt="blue " * 1000,
                  hunyuan_video={"true_cfg_scale": 6.0})
    want = stages_of(folder, *UNTILED, **fields)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(os.path.join(folder, name))
    assert stages_of(folder, *UNTILED, **fields) == want


# GB that diffusers was measured to take at 512x768x121 in bfloat16, all weights on the device, no tiles.
PUBLISHED_GB = {"ltx-0.9.1": 17.75, "cogvideox-1.5-5b": 36.51, "hunyuan-video": 60.10}


@pytest.mark.parametrize("release", PUBLISHED_GB)
def test_the_predicted_peak_is_at_most_the_published_one(release, text_encoder, tmp_path):
    folder = make(str(tmp_path), release, text_encoder)
    stages = stages_of(folder, "--device", "cuda:0", *UNTILED, height=512, width=768, num_frames=121)
    peaks = {name: sum(int(stage[part]) for part in ("weights_bytes", "activations_bytes", "workspace_bytes")) / 1e9
             for name, stage in stages.items()}
    print(peaks)
    # Above the weights alone, so that nothing has been left out.
    assert int(stages["DECODE"]["weights_bytes"]) / 1e9 < max(peaks.values()) <= PUBLISHED_GB[release]
