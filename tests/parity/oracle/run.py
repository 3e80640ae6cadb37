"""Runs a pipeline on the request of a folder, as its author would: a CPU generator seeded with the request's seed."""
import contextlib
import inspect
import os

import numpy as np
import PIL.Image
import torch


def load_pipeline(folder, request, dtype=torch.float32, variant=None):
    """The pipeline in `folder`/model, with the request's VAE options."""
    import diffusers
    pipeline = getattr(diffusers, request["pipeline_class"]).from_pretrained(
        os.path.join(folder, "model"), dtype=dtype, local_files_only=True, variant=variant)
    pipeline.set_progress_bar_config(disable=True)
    if "second_pass" in request:
        from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
        pipeline.latent_upsampler = LTXLatentUpsamplerModel.from_pretrained(
            os.path.join(folder, "model", "latent_upsampler"), torch_dtype=dtype, local_files_only=True, variant=variant)
    apply_vae_options(pipeline, request)
    return pipeline


def apply_vae_options(pipeline, request):
    options = request.get("vae_tiling")
    if options is not None:
        options = dict(options)
        framewise = options.pop("framewise", False)
        pipeline.vae.enable_tiling(**options)
        if framewise:
            pipeline.vae.use_framewise_decoding = True
            pipeline.vae.use_framewise_encoding = True
    if request.get("vae_slicing"):
        pipeline.vae.enable_slicing()


def _read_image(folder, name):
    return PIL.Image.open(os.path.join(folder, name)).convert("RGB")


def call_arguments(pipeline, request, folder):
    """The request as keyword arguments of the pipeline's call; input files are read back from `folder`."""
    arguments = dict(request["call"])
    accepted = inspect.signature(pipeline.__call__).parameters
    image = video = None
    if "input_image" in request:
        image = _read_image(folder, request["input_image"])
    if "input_last_image" in request:
        arguments["last_image"] = _read_image(folder, request["input_last_image"])
    if "input_video" in request:
        frames = np.load(os.path.join(folder, request["input_video"]))
        video = [PIL.Image.fromarray(frame) for frame in frames]
    if request.get("conditions"):
        from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
        arguments["conditions"] = [
            LTXVideoCondition(**({"image": image} if c["input"] == "image" else {"video": video}),
                              frame_index=c["frame_index"], strength=c["strength"])
            for c in request["conditions"]]
    else:
        if image is not None:
            arguments["cond_image" if "cond_image" in accepted else "image"] = image
        if video is not None:
            arguments["control_video" if "control_video" in accepted else "video"] = video
    if "prompt" in accepted:
        arguments["prompt"] = request["prompt"]
        if request["negative_prompt"] is not None:
            arguments["negative_prompt"] = request["negative_prompt"]
    if "seed" in accepted:  # of each window's own generator
        arguments["seed"] = request["seed"]
    unknown = [name for name in arguments if name not in accepted]
    if unknown:
        raise ValueError(f"{type(pipeline).__name__} takes no {unknown}")
    return arguments


def run(pipeline, request, folder, output_type, **extra):
    torch.manual_seed(request["seed"])  # the LTX 0.9.1 decoder draws from the global generator
    if "second_pass" in request:
        with torch.no_grad():
            return run_two_passes(pipeline, request, folder, output_type, **extra)
    generator = torch.Generator("cpu").manual_seed(request["seed"])
    with torch.no_grad(), custom_schedule(pipeline, request.get("schedule")):
        return pipeline(generator=generator, output_type=output_type, **extra,
                        **call_arguments(pipeline, request, folder)).frames


def run_two_passes(pipeline, request, folder, output_type, **extra):
    """The recipe of LTX-Video 0.9.7's and 0.9.8's model cards: a first pass at half the size, the latent upsampler, a
    second pass from what that gives, each pass with a generator of its own."""
    from diffusers import LTXLatentUpsamplePipeline
    arguments = {**call_arguments(pipeline, request, folder), **extra}
    height, width = arguments.pop("height"), arguments.pop("width")
    second = dict(request["second_pass"])
    upsampling = {name: second.pop(name) for name in ("adain_factor", "tone_map_compression_ratio")}

    def generator():
        return torch.Generator("cpu").manual_seed(request["seed"])

    latents = pipeline(generator=generator(), output_type="latent", height=height // 2, width=width // 2, **arguments).frames
    upsample = LTXLatentUpsamplePipeline(vae=pipeline.vae, latent_upsampler=pipeline.latent_upsampler)
    latents = upsample(latents=latents, height=height, width=width, output_type="latent", **upsampling).frames
    arguments.pop("timesteps", None)
    return pipeline(generator=generator(), output_type=output_type, height=height, width=width, latents=latents,
                    **{**arguments, **second}).frames


@contextlib.contextmanager
def custom_schedule(pipeline, schedule):
    """Hands `schedule` ({"timesteps": [...]} or {"sigmas": [...]}) to the sampler.

    LTXPipeline 0.42.1 takes `timesteps` but always passes its own sigmas beside them, which retrieve_timesteps refuses;
    and it takes no sigmas. So the list replaces the arguments of set_timesteps, where its meaning is defined.
    """
    if not schedule:
        yield
        return
    sampler = pipeline.scheduler
    original = sampler.set_timesteps

    def set_timesteps(*_, device=None, mu=None, **__):
        original(device=device, mu=mu, **schedule)

    # retrieve_timesteps looks for the parameter names.
    set_timesteps.__signature__ = inspect.signature(original)
    sampler.set_timesteps = set_timesteps
    try:
        yield
    finally:
        del sampler.set_timesteps
