"""HunyuanVideo against diffusers, float32 on the CPU: text, both kinds of image conditions, SkyReels and FramePack, untiled and
tiled, and what the plain variants leave out."""
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

import fixtures
import kino_render
import parity_check
from fixtures import Case
from oracle.build import Changes
from oracle.families.hunyuan import FRAMEPACKED
from oracle.prompts import AWKWARD, NEGATIVE

LONG_PROMPT = ("An old sailor, his white beard lit by the low sun, turns slowly to the camera while a flock of birds "
               "drifts across the water behind a wooden bridge; soft shadows, warm tones, handheld camera. ") * 12
VANILLA = {"sampling_type": 1}


def each(name, task="t2v", variants=(0, 1), tilings=None, **changes):
    extra = {"tilings": tilings} if tilings else {}
    return [Case(f"hunyuan-{task}-{name}-{variant}", task, variant, Changes(**changes), family="hunyuan", **extra)
            for variant in variants]


# Beside them the class's own sizes, in which a frame of 288 pixels has several tiles, of the fewest frames there may be.
TILINGS = {"uneven": dict(tile_sample_min_height=48, tile_sample_min_width=32, tile_sample_stride_height=32,
                          tile_sample_stride_width=24),
           "time": dict(tile_sample_min_num_frames=8, tile_sample_stride_num_frames=4),
           "time_and_space": dict(tile_sample_min_num_frames=12, tile_sample_stride_num_frames=8, tile_sample_min_height=32,
                                  tile_sample_min_width=32, tile_sample_stride_height=16, tile_sample_stride_width=16)}
DEFAULTS = {"untiled": None, "defaults": {}}
SMALL = {"height": 32, "width": 32}
CASES = [
    *fixtures.matrix("hunyuan"),
    # SkyReels-V1's text-to-video checkpoint and FastHunyuan are HunyuanVideo's networks.
    *each("skyreels", call={"guidance_scale": 1.0, "true_cfg_scale": 6.0}, negative_prompt=NEGATIVE),
    *each("fast", variants=(0, 2), call={"num_inference_steps": 6}, scheduler={"shift": 17.0}),
    # Of true CFG, either alone does nothing; an empty negative prompt is one.
    *each("scale_alone", variants=(0,), call={"true_cfg_scale": 3.0}),
    *each("negative_alone", variants=(0,), negative_prompt=NEGATIVE),
    *each("scale_of_one", variants=(1,), call={"true_cfg_scale": 1.0}),
    *each("empty_negative", variants=(1,), negative_prompt=""),
    *each("one_frame", call={"num_frames": 1}),
    *each("other_frames", call={"num_frames": 11, **SMALL}),  # 9 come out
    *each("one_step", call={"num_inference_steps": 1}),
    # 9, 13, 6 and 5 latent frames: several tiles in time, the last of which is short or has no frame of its own.
    *each("long", call={"num_frames": 33, **SMALL}),
    *each("longer", variants=(0,), call={"num_frames": 49, **SMALL}),
    *each("six_latents", variants=(0,), call={"num_frames": 21, **SMALL}),
    *each("five_latents", variants=(0,), call={"num_frames": 17, **SMALL}),
    *each("wide", call={"num_frames": 5, "height": 16, "width": 144}),
    *each("tall", variants=(1,), call={"num_frames": 5, "height": 128, "width": 16}),
    *each("tiles", tilings=TILINGS, call={"num_frames": 25, "height": 80, "width": 64}),
    *each("large", variants=(0,), tilings=DEFAULTS, call={"num_frames": 1, "height": 288, "width": 272, "num_inference_steps": 1}),
    *each("awkward_prompt", prompt="  {curly} \u201cquotes\u201d " + AWKWARD[1] + " \u6771\u4eac\U0001f984 'S we'LL 12345\r\n\r\n  x"),
    *each("special_tokens", prompt="a <|eot_id|> b <|begin_of_text|><|start_header_id|>c<pad>d <|endoftext|> e"),
    *each("empty_prompt", variants=(0,), prompt=""),
    *each("cut_prompt", prompt=LONG_PROMPT),
    *each("sequence_24", call={"max_sequence_length": 24}, prompt=LONG_PROMPT[:200]),
    *each("sequence_1", variants=(0,), call={"max_sequence_length": 1}),
    # One of all image tokens, of two, three, ...; from six on all.
    *each("every_token", "i2v", call={"image_embed_interleave": 1}),
    *each("third_token", "i2v", call={"image_embed_interleave": 3}),
    *each("beyond", "i2v", (0,), call={"image_embed_interleave": 6}),
    # The negative prompt's image is black and has every second token, whatever is asked for.
    *each("true_cfg", "i2v", (0,), call={"true_cfg_scale": 2.5}, negative_prompt=NEGATIVE),
    *each("true_cfg_every_token", "i2v", call={"true_cfg_scale": 2.5, "image_embed_interleave": 1}, negative_prompt=NEGATIVE),
    *each("no_cfg", "i2v", (1, 2), call={"true_cfg_scale": 1.0}),
    # Of a prompt that fills the length, the assistant's header is cut off, or is there in part.
    *each("cut_prompt", "i2v", range(3), prompt=LONG_PROMPT),
    *each("sequence_12", "i2v", call={"max_sequence_length": 12}, prompt="a red panda walks along"),
    *each("empty_prompt", "i2v", (0, 2), prompt=""),
    *each("awkward_prompt", "i2v", (1,), prompt=AWKWARD[1]),
    *each("one_frame", "i2v", (0, 2), call={"num_frames": 1}),
    # Of latent_concat's the first four are left out.
    *each("five_frames", "i2v", (1,), call={"num_frames": 5}),
    *each("long", "i2v", range(3), call={"num_frames": 33, **SMALL}),
    *each("wide", "i2v", range(3), call={"num_frames": 5, "height": 16, "width": 144}),
    # Its image is encoded in tiles too.
    *each("tiles", "i2v", range(3), tilings=TILINGS, call={"num_frames": 21, "height": 80, "width": 64}),
    *each("one_frame_sections", "framepack", call={"latent_window_size": 1, "num_frames": 3}),
    *each("one_step", "framepack", range(3), call={"num_inference_steps": 1}),
    *each("published_window", "framepack", (0, 1), call={"latent_window_size": 9, "num_frames": 40, **SMALL}),
    *each("eight_sections", "framepack", range(3), call={"latent_window_size": 2, "num_frames": 40, **SMALL}),
    # A section is shown the 19 latent frames next to it: the last of six has 20 or more to choose from.
    *each("full_history", "framepack", (0, 1), call={"latent_window_size": 4, "num_frames": 66, **SMALL}),
    *each("wide", "framepack", range(3), call={"height": 16, "width": 144}),
    *each("tiles", "framepack", range(3), tilings=TILINGS, call={"height": 80, "width": 64}),
    *each("true_cfg", "framepack", range(3), call={"true_cfg_scale": 2.0}, negative_prompt=""),
    *each("cut_prompt", "framepack", (0,), prompt=LONG_PROMPT),
    Case("hunyuan-variant_bf16", "t2v", 1, Changes(weights_variant="bf16", weights_dtype=torch.bfloat16), family="hunyuan"),
    Case("hunyuan-i2v-variant_fp16", "i2v", 0, Changes(weights_variant="fp16", weights_dtype=torch.float16), family="hunyuan"),
    Case("hunyuan-shards", "i2v", 1, Changes(max_shard_size="60KB"), family="hunyuan"),
    Case("hunyuan-framepack-shards", "framepack", 2, Changes(max_shard_size="60KB"), family="hunyuan"),
]
# How many kinds of checkpoints, or of sampling, a task's variants turn through.
STYLES = {"t2v": 2, "i2v": 3, "framepack": 3}
# Of options that are about the same, every run takes one for each task.
ABOUT = {"no_cfg": ("scale_alone", "negative_alone", "scale_of_one"), "frames": ("one_frame", "other_frames", "five_frames", "one_step"),
         "shape": ("wide", "tall"), "long": ("longer", "six_latents", "five_latents", "eight_sections", "published_window"),
         "prompt": ("empty_prompt", "awkward_prompt", "special_tokens"),
         "length": ("cut_prompt", "sequence_24", "sequence_12", "sequence_1"),
         "interleave": ("every_token", "third_token", "beyond"), "files": ("variant_bf16", "variant_fp16", "shards")}
THEME = {option: theme for theme, options in ABOUT.items() for option in options}


def facts(case, tiling):
    option = case.name.removesuffix(f"-{case.variant}").removeprefix("hunyuan-").removeprefix(f"{case.task}-")
    about = [("about", case.task, THEME.get(option, option)), ("tiling", tiling), ("tiled", case.task, tiling != "untiled"),
             ("style", case.task, case.variant % STYLES[case.task])]
    if option == "full_history":
        about.append(("history", case.variant % STYLES[case.task]))
    if option == "framepack":  # a plain variant
        window, frames, true_cfg = FRAMEPACKED[case.variant]
        sections = -(-frames // (4 * window - 3))
        about += [("sections", min(sections, 5)), ("true_cfg", true_cfg), ("scheduler", (case.variant + case.variant // 3) % 3)]
    return about


@parity_check.parametrize(CASES, facts)
def test_stages_equal_diffusers(case, tiling, tmp_path_factory, pytestconfig):
    parity_check.check(case, tiling, tmp_path_factory, pytestconfig.kino_note)


def fixture_of(name):
    return fixtures.make(next(case for case in CASES if case.name == name))


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def rewrite(path, **values):
    content = {**read(path), **values}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)


def request_of(fixture, **fields):
    request = {**read(fixture.request("untiled")), **fields}
    for condition in request.get("conditions", []):
        condition["path"] = os.path.join(fixture.folder, condition["path"])
    return request


def equals(model, fixture):
    got = kino_render.render(str(model), request_of(fixture))
    return np.abs(got - fixture.frames("untiled")).max() <= 1e-4


@pytest.mark.parametrize("name", ["hunyuan-t2v-1", "hunyuan-i2v-0"])
def test_a_tokenizer_is_what_its_file_says_and_not_its_class(name, tmp_path):
    """Published folders name LlamaTokenizerFast, under which transformers 5 splits the same file's text otherwise."""
    fixture = fixture_of(name)
    model = shutil.copytree(fixture.model, tmp_path / "model")
    rewrite(model / "model_index.json", tokenizer=["transformers", "LlamaTokenizerFast"])
    rewrite(model / "tokenizer" / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    assert equals(model, fixture)


@pytest.mark.parametrize("name", ["hunyuan-t2v-1", "hunyuan-framepack-0"])
def test_settings_of_padding_in_a_tokenizers_file_are_not_its_callers(name, tmp_path):
    """transformers leaves there what the last call asked for."""
    fixture = fixture_of(name)
    model = shutil.copytree(fixture.model, tmp_path / "model")
    pad = read(model / "tokenizer" / "tokenizer.json")["added_tokens"][-1]
    rewrite(model / "tokenizer" / "tokenizer.json",
            truncation={"direction": "Left", "max_length": 7, "strategy": "LongestFirst", "stride": 0},
            padding={"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": pad["id"],
                     "pad_type_id": 0, "pad_token": pad["content"]})
    assert equals(model, fixture)


def rename(folder, rule, **more):
    """Weights under the names that `rule` gives them, None: left out; and more of them."""
    path = folder / "model.safetensors"
    tensors = {rule(name): tensor for name, tensor in safetensors.torch.load_file(path).items()}
    tensors.pop(None, None)
    safetensors.torch.save_file({**tensors, **more}, path, metadata={"format": "pt"})


def clip_of_4(name):
    return f"text_model.{name}"


def llama_causal(name):
    return f"model.{name}"


def llava_of_4(name):
    return name.replace("vision_tower.", "vision_tower.vision_model.", 1)


def llava_between(name):
    name = llava_of_4(name)
    if name.startswith("language_model."):
        inner = name.removeprefix("language_model.")
        return inner if inner.startswith("lm_head") else f"model.language_model.{inner.removeprefix('model.')}"
    return f"model.{name}"


def siglip_of_4(name):
    return name if name.startswith("vision_model.") else f"vision_model.{name}"


def without_head(name):
    return None if "head." in name else name


UNUSED = torch.zeros(3)
NAMES = {"clip": ("hunyuan-t2v-1", "text_encoder_2", clip_of_4, {"text_model.embeddings.position_ids": torch.arange(77)[None]}),
         "llama": ("hunyuan-t2v-1", "text_encoder", llama_causal, {"lm_head.weight": UNUSED}),
         "llama_bare": ("hunyuan-framepack-0", "text_encoder", lambda name: name, {"rotary_emb.inv_freq": UNUSED}),
         "llava": ("hunyuan-i2v-0", "text_encoder", llava_of_4, {}),
         "llava_between": ("hunyuan-i2v-1", "text_encoder", llava_between, {}),
         "siglip": ("hunyuan-framepack-0", "image_encoder", siglip_of_4, {}),
         "siglip_without_head": ("hunyuan-framepack-1", "image_encoder", without_head, {})}


@pytest.mark.parametrize("kind", NAMES)
def test_weights_may_have_the_names_of_another_transformers(kind, tmp_path):
    name, component, rule, more = NAMES[kind]
    fixture = fixture_of(name)
    model = shutil.copytree(fixture.model, tmp_path / "model")
    rename(model / component, rule, **more)
    assert equals(model, fixture)


def test_text_encoders_in_single_files_give_the_folders_frames(tmp_path):
    fixture = fixture_of("hunyuan-t2v-1")
    want = kino_render.render(fixture.model, request_of(fixture))
    model = shutil.copytree(fixture.model, tmp_path / "model")
    flags = []
    for component, rule in (("text_encoder", llama_causal),
                            ("text_encoder_2", lambda name: f"text_encoders.clip_l.transformer.{clip_of_4(name)}")):
        rename(model / component, rule)
        # The folder has no weights then.
        path = (model / component / "model.safetensors").rename(tmp_path / f"{component}.safetensors")
        flags += ["--model", f"{component}={path}"]
    assert np.array_equal(kino_render.render(model, request_of(fixture), flags=flags), want)


def test_a_transformer_under_diffusers_names_is_the_folders(tmp_path):
    fixture = fixture_of("hunyuan-framepack-0")
    model = shutil.copytree(fixture.model, tmp_path / "model")
    file = (model / "transformer" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "framepack.safetensors")
    want = kino_render.render(fixture.model, request_of(fixture))
    assert np.array_equal(kino_render.render(model, request_of(fixture), flags=["--model", file]), want)


def test_a_pixel_processor_may_have_any_of_its_classes(tmp_path):
    fixture = fixture_of("hunyuan-i2v-0")
    model = shutil.copytree(fixture.model, tmp_path / "model")
    rewrite(model / "model_index.json", image_processor=["transformers", "CLIPImageProcessor"])
    rewrite(model / "image_processor" / "preprocessor_config.json", image_processor_type="CLIPImageProcessor")
    assert equals(model, fixture)


def test_the_encoders_config_says_which_id_the_images_tokens_have(tmp_path):
    fixture = fixture_of("hunyuan-i2v-0")
    model = shutil.copytree(fixture.model, tmp_path / "model")
    other = read(model / "tokenizer" / "tokenizer.json")["model"]["vocab"]["z"]  # not a letter of the prompt
    assert "z" not in request_of(fixture)["prompt"]
    rewrite(model / "text_encoder" / "config.json", image_token_index=other, image_token_id=other)
    assert equals(model, fixture)


def test_the_last_image_shows():
    """FramePack takes it where the video is made from its end on."""
    fixture = fixture_of("hunyuan-framepack-2")
    request = request_of(fixture)
    request["conditions"][1]["path"] = request["conditions"][0]["path"]
    moved = np.abs(kino_render.render(fixture.model, request) - fixture.frames("untiled"))
    assert moved[-1].max() > 1e-3


@pytest.mark.parametrize("name, change, says", [
    ("hunyuan-t2v-0", {"height": 40}, "height"),
    ("hunyuan-t2v-0", {"num_inference_steps": 0}, "num_inference_steps"),
    ("hunyuan-t2v-0", {"hunyuan_video": {"max_sequence_length": 0}}, "max_sequence_length"),
    ("hunyuan-t2v-0", {"hunyuan_video": {"true_cfg_scale": -1.0}}, "true_cfg_scale"),
    ("hunyuan-t2v-0", {"hunyuan_video": {"latent_window_size": 2}}, "latent_window_size"),
    ("hunyuan-t2v-0", {"hunyuan_video": {"image_embed_interleave": 2}}, "image_embed_interleave"),
    ("hunyuan-t2v-0", {"task": "IMAGE_TO_VIDEO"}, "task"),
    ("hunyuan-i2v-0", {"conditions": []}, "IMAGE"),
    ("hunyuan-i2v-0", {"hunyuan_video": {"image_embed_interleave": 0}}, "image_embed_interleave"),
    ("hunyuan-i2v-1", {"num_frames": 1}, "num_frames"),  # of which nothing is left
    ("hunyuan-framepack-0", {"hunyuan_video": {"latent_window_size": 0}}, "latent_window_size"),
    ("hunyuan-framepack-2", {"hunyuan_video": VANILLA}, "conditions"),
    ("hunyuan-framepack-0", {"conditions": []}, "IMAGE"),
])
def test_what_diffusers_fails_at_is_refused(name, change, says):
    fixture = fixture_of(name)
    request = request_of(fixture)
    knobs = {**request.get("hunyuan_video", {}), **change.get("hunyuan_video", {})}
    with pytest.raises(RuntimeError, match=says):
        kino_render.render(fixture.model, {**request, **change, "hunyuan_video": knobs})
