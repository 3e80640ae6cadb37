"""Builds a tiny pipeline's folder and, with `expect`, what diffusers makes of it."""
import dataclasses
import json
import os
import random
import shutil
import time

import numpy as np
import PIL.Image
import torch

from . import families
from .inputs import synthetic_frames
from .prompts import AWKWARD, make_prompt
from .run import apply_vae_options, load_pipeline, run
from .weights import randomize, rescale_last_layer


@dataclasses.dataclass
class Changes:
    """How a case departs from the variant it is made from."""
    # Replaces or adds call arguments; a value of None removes one.
    call: dict = dataclasses.field(default_factory=dict)
    prompt: str | None = None
    negative_prompt: str | None = None
    # {"timesteps": [...]} or {"sigmas": [...]}, see run.custom_schedule.
    schedule: dict | None = None
    # Replaces or adds values of the scheduler's config.
    scheduler: dict = dataclasses.field(default_factory=dict)
    # Arguments of vae.enable_tiling, and `framewise`.
    vae_tiling: dict | None = None
    # save_pretrained's: names like "bf16", and shards of at most this size.
    weights_variant: str | None = None
    weights_dtype: torch.dtype | None = None
    max_shard_size: str | None = None
    # Of the input video.
    video_frames: int | None = None
    # Leaves spiece.model alone, as older checkpoints do.
    drop_tokenizer_json: bool = False


def build(family, task, variant, seed, folder, dtype=torch.float32, tiling=False, changes=None):
    """Writes `folder`/model, request.json and the inputs; returns the request."""
    changes = changes or Changes()
    module = families.family(family)
    rng = random.Random(f"{family}-{task}-{variant}")
    for name in ("model", "work"):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    os.makedirs(folder, exist_ok=True)
    work = os.path.join(folder, "work")
    torch.manual_seed(variant)
    spec = module.build(rng, work, task, variant)
    spec.video_frames = changes.video_frames or spec.video_frames
    pipeline = spec.pipeline
    pipeline.set_progress_bar_config(disable=True)
    if changes.scheduler:
        pipeline.scheduler = type(pipeline.scheduler).from_config({**pipeline.scheduler.config, **changes.scheduler})
    networks = {name: part for name, part in sorted(pipeline.components.items()) if isinstance(part, torch.nn.Module)}
    if spec.upsampler is not None:
        networks["latent_upsampler"] = pipeline.latent_upsampler = spec.upsampler
    for index, network in enumerate(networks.values()):
        randomize(network, 7919 * variant + 104729 * (index + 1))

    request = _request(module, spec, rng, family, task, variant, seed, dtype, tiling, changes)
    _write_inputs(spec, request, variant, folder)
    apply_vae_options(pipeline, request)
    _settle(pipeline, request, folder)

    weights_dtype = changes.weights_dtype or dtype
    if weights_dtype != torch.float32:
        pipeline.to(weights_dtype)
    model = os.path.join(folder, "model")
    options = {"variant": changes.weights_variant}
    if changes.max_shard_size:
        options["max_shard_size"] = changes.max_shard_size
    pipeline.save_pretrained(model, **options)
    if spec.upsampler is not None:
        spec.upsampler.to(weights_dtype).save_pretrained(os.path.join(model, "latent_upsampler"), **options)
    for subfolder, files in spec.extra_files.items():
        for file in files:
            shutil.copy(file, os.path.join(model, subfolder, os.path.basename(file)))
    if changes.drop_tokenizer_json:
        os.remove(os.path.join(model, "tokenizer", "tokenizer.json"))
    shutil.rmtree(work, ignore_errors=True)
    _write_json(os.path.join(folder, "request.json"), request)
    return request


def expect(folder, request, dtype=torch.float32):
    """Runs the pipeline reloaded from `folder`/model; writes the frames, latents and tokens expected of a reader."""
    pipeline = load_pipeline(folder, request, dtype)
    tokens = {}
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None:
            texts = [request["prompt"], request["negative_prompt"], *AWKWARD]
            tokens[name] = {t: tokenizer(t)["input_ids"] for t in texts if t is not None}
    _write_json(os.path.join(folder, "tokens.json"), tokens)
    start = time.time()
    frames = np.asarray(run(pipeline, request, folder, "np")[0], dtype=np.float32)
    seconds = time.time() - start
    latents = run(pipeline, request, folder, "latent")
    if isinstance(latents, list):  # FramePack's, of all sections so far
        latents = latents[-1]
    latents = torch.as_tensor(latents).float().cpu().numpy()
    if not np.isfinite(frames).all() or frames.std() <= 0.02:
        raise ValueError(f"{folder}: degenerate frames, standard deviation {frames.std()}")
    np.save(os.path.join(folder, "expected.npy"), frames)
    np.save(os.path.join(folder, "expected_latents.npy"), latents)
    request["expected_shape"] = list(frames.shape)
    request["versions"] = {name: __import__(name).__version__
                           for name in ("torch", "diffusers", "transformers")}
    _write_json(os.path.join(folder, "request.json"), request)
    return frames, latents, seconds


def _request(module, spec, rng, family, task, variant, seed, dtype, tiling, changes):
    call = {key: value for key, value in {**spec.call, **changes.call}.items()
            if value is not None}
    request = {
        "family": family, "task": task, "variant": variant,
        "pipeline_class": type(spec.pipeline).__name__,
        "prompt": " |  ".join(make_prompt(rng) for _ in range(spec.segments)),
        "negative_prompt": spec.negative, "seed": seed, "global_seed": seed, "fps": module.FPS,
        "dtype": str(dtype).replace("torch.", ""), "call": call, "height": call["height"],
        "width": call["width"], "num_frames": call.get("num_frames", spec.video_frames),
        "steps": call.get("num_inference_steps"), "guidance": call.get("guidance_scale")}
    for key in ("prompt", "negative_prompt"):
        if getattr(changes, key) is not None:
            request[key] = getattr(changes, key)
    if task == "upsample":
        call.pop("num_frames")
        request["prompt"] = None
    if spec.always_tiled:
        request["vae_tiling"] = {}
    elif tiling:
        request["vae_tiling"] = module.small_tiles()
        request["vae_slicing"] = True
    if changes.vae_tiling is not None:
        request["vae_tiling"] = changes.vae_tiling
    if changes.schedule:
        request["schedule"] = changes.schedule
    if spec.second_pass is not None:
        request["second_pass"] = spec.second_pass
    return request


def _write_inputs(spec, request, variant, folder):
    grow = 1.5 if variant % 2 else 1.0  # odd variants: inputs of another size, so that resizing is exercised
    height, width = int(request["height"] * grow), int(request["width"] * grow)
    if spec.image:
        image = synthetic_frames(1, height, width, variant + 1)[0]
        PIL.Image.fromarray(image).save(os.path.join(folder, "input_image.png"))
        request["input_image"] = "input_image.png"
    if spec.last_image:
        image = synthetic_frames(1, height, width, variant + 3)[0]
        PIL.Image.fromarray(image).save(os.path.join(folder, "input_last_image.png"))
        request["input_last_image"] = "input_last_image.png"
    if spec.video:
        count = spec.video_frames or request["num_frames"]
        video = synthetic_frames(count, height, width, variant + 2)
        np.save(os.path.join(folder, "input_video.npy"), video)
        for index, frame in enumerate(video):
            name = f"input_video_{index:03d}.png"
            PIL.Image.fromarray(frame).save(os.path.join(folder, name))
        request["input_video"] = "input_video.npy"
    if spec.conditions is not None:
        request["conditions"] = [dict(zip(("input", "frame_index", "strength"), each)) for each in spec.conditions]


def _settle(pipeline, request, folder):
    """Unit-size predictions, frames with visible contrast."""
    def call():
        run(pipeline, request, folder, "np")

    if getattr(pipeline, "transformer", None) is not None:
        rescale_last_layer(pipeline.transformer.proj_out, call, 0.8, centre=False)
    if getattr(pipeline, "latent_upsampler", None) is not None:
        rescale_last_layer(pipeline.latent_upsampler.final_conv, call, 1.0, centre=False)
    decoder = pipeline.vae.decoder
    last = decoder.conv_out if hasattr(decoder, "conv_out") else decoder.proj_out
    rescale_last_layer(last, call, 0.45, centre=True)


def _write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
