#!/usr/bin/env python3
"""Turns a folder written by make_tiny_pipelines.py into what kino-render reads.

Usage: kino_request.py DIR [DIR ...]

Writes DIR/kino_request.json, the JSON form of kino.v1.GenerateRequest (condition sources are local paths, which
kino-render alone accepts), and DIR/input_video.mkv (FFV1, RGB, lossless) where the request has an input video.
Then: kino-render --model DIR/model --request DIR/kino_request.json --dtype float32 --device cpu --out out.npy
and out.npy [T, H, W, 3] float32 0..1 is to be held against DIR/expected.npy.
"""
import json
import os
import subprocess
import sys

TASKS = {"t2v": "TEXT_TO_VIDEO", "i2v": "IMAGE_TO_VIDEO", "v2v": "VIDEO_TO_VIDEO",
         "control": "VIDEO_TO_VIDEO", "upsample": "UPSCALE", "framepack": "IMAGE_TO_VIDEO"}
# The oneof member of GenerateRequest, where it is not the family's short name.
FAMILY_FIELDS = {"hunyuan": "hunyuan_video"}
SAMPLING_TYPES = ("inverted_anti_drifting", "vanilla")
COMMON = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale")


def convert(source):
    """The GenerateRequest, as a dict, that asks for the same video as `source` (a request.json)."""
    call = dict(source["call"])
    request = {"task": _task(source), "seed": source["seed"], "fps": source["fps"]}
    for key in ("prompt", "negative_prompt"):
        if source.get(key) is not None:
            request[key] = source[key]
    for key in COMMON:
        value = call.pop(key, None)
        if value is not None:
            request[key] = value
    request.setdefault("num_frames", source["num_frames"])
    strength = call.pop("cond_strength", 0.5) if source["task"] == "long" else call.pop("strength", None)
    conditions = _conditions(source, strength)
    if conditions:
        request["conditions"] = conditions
    else:  # LTXConditionPipeline takes it for nothing
        call.pop("image_cond_noise_scale", None)
    call.update(source.get("schedule", {}))
    if "second_pass" in source:
        second = dict(source["second_pass"])
        names = {"timesteps": "second_pass_timesteps", "num_inference_steps": "second_pass_steps",
                 "denoise_strength": "second_pass_strength"}
        call.update({names.get(key, key): value for key, value in second.items()}, passes=2)
    if "schedule" in source or "sigmas" in call:  # the list's length is the number of steps
        request.pop("num_inference_steps", None)
    if call:
        call = {key: _knob(key, value) for key, value in call.items()}
        request[FAMILY_FIELDS.get(source["family"], source["family"])] = call
    if "vae_tiling" in source and source["family"] != "allegro":  # Allegro's VAE always tiles
        request["plan"] = {"vae_tiling": _tiling(source["vae_tiling"])}
    return request


def _knob(name, value):
    """A switch is a knob of 0 or 1, and a name of one of several things is a number."""
    if name == "sampling_type":
        return SAMPLING_TYPES.index(value)
    return int(value) if isinstance(value, bool) else value


def _task(source):
    if source["task"] in TASKS:
        return TASKS[source["task"]]
    if source["task"] == "long":
        return TASKS["i2v" if source.get("input_image") else "t2v"]
    inputs = {condition["input"] for condition in source["conditions"]}
    return TASKS["v2v" if "video" in inputs else "i2v" if inputs else "t2v"]


def _tiling(options):
    """diffusers' arguments with strides in place of overlaps, which Kino does not have."""
    tiling = dict(options)
    for axis in ("height", "width"):
        overlap = tiling.pop(f"tile_overlap_factor_{axis}", None)
        if overlap is not None:
            tile = tiling[f"tile_sample_min_{axis}"]
            tiling[f"tile_sample_stride_{axis}"] = tile - int(tile * overlap)
    return tiling


def _conditions(source, strength):
    if "conditions" in source:
        conditions = [{"kind": c["input"].upper(), "frame_index": c["frame_index"],
                       "strength": c["strength"]} for c in source["conditions"]]
    elif source.get("input_video"):
        conditions = [{"kind": "CONTROL_VIDEO" if source["task"] == "control" else "VIDEO"}]
    elif source.get("input_image"):
        conditions = [{"kind": "IMAGE"}]
    else:
        conditions = []
    for condition in conditions:
        is_image = condition["kind"] == "IMAGE"
        condition["path"] = "input_image.png" if is_image else "input_video.mkv"
    if source.get("input_last_image"):
        conditions.append({"kind": "IMAGE", "frame_index": source["num_frames"] - 1, "path": source["input_last_image"]})
    for condition in conditions:
        if strength is not None:
            condition["strength"] = strength
    return conditions


def write_video(folder, source):
    """The request's input video, if it has one, as a lossless file."""
    if source.get("input_video"):
        subprocess.run(
            ["ffmpeg", "-y", "-loglevel", "error", "-framerate", str(source["fps"]), "-i",
             os.path.join(folder, "input_video_%03d.png"), "-c:v", "ffv1", "-pix_fmt", "gbrp",
             os.path.join(folder, "input_video.mkv")], check=True)


def write(folder):
    """Writes kino_request.json (and the video's lossless file) beside `folder`/request.json; returns the request."""
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as file:
        source = json.load(file)
    request = convert(source)
    write_video(folder, source)
    with open(os.path.join(folder, "kino_request.json"), "w", encoding="utf-8") as file:
        json.dump(request, file, indent=1)
    return request


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        print(name, json.dumps(write(name)))
