#!/usr/bin/env python3
"""kino-render's counterpart in diffusers, for the benchmark: the same request file in, the same frames and stats out.

Usage: diffusers_render.py --model DIR --request FILE.json --out FILE.npy --stats FILE.json --dtype float32|bfloat16

text_to_video only. `load` does not count the imports (several seconds), `decode` includes the conversion
to frames, `denoise` is everything from the first step to the last.
"""
import argparse
import inspect
import json
import os
import resource
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import diffusers
import numpy as np
import torch


class StageClock:
    def __init__(self):
        self.stages, self.step_seconds = [], []

    def wrap(self, owner, name, stage):
        """Replaces owner.name by a version that adds its seconds to `stage`."""
        inner = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.add(stage, time.perf_counter() - start)

        setattr(owner, name, timed)

    def add(self, stage, seconds):
        for entry in self.stages:
            if entry["stage"] == stage:
                entry["seconds"] += seconds
                return
        self.stages.append({"stage": stage, "seconds": seconds})


def call_arguments(request):
    names = ("prompt", "negative_prompt", "height", "width", "num_frames", "num_inference_steps",
             "guidance_scale")
    families = ("ltx", "mochi", "cogvideox", "allegro", "hunyuan_video")
    known = {*names, "task", "seed", "fps", *families}
    if unknown := set(request) - known:
        raise ValueError(f"the request has fields that this program does not know: {unknown}")
    return {**{n: request[n] for n in names if n in request}, **next((request[f] for f in families if f in request), {})}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "request", "out", "stats", "dtype"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    with open(args.request, encoding="utf-8") as file:
        request = json.load(file)
    clock = StageClock()
    start = time.perf_counter()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        args.model, dtype=getattr(torch, args.dtype), local_files_only=True)
    clock.add("load", time.perf_counter() - start)
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(pipeline, diffusers.AllegroPipeline):
        pipeline.vae.enable_tiling()  # it decodes nothing without
    clock.wrap(pipeline, "encode_prompt", "encode_text")
    clock.wrap(pipeline.vae, "decode", "decode")
    clock.wrap(pipeline.video_processor, "postprocess_video", "decode")
    marks = []
    set_timesteps = pipeline.scheduler.set_timesteps

    def first_mark(*args, **kwargs):
        result = set_timesteps(*args, **kwargs)
        marks.append(time.perf_counter())  # right before the loop
        return result

    first_mark.__signature__ = inspect.signature(set_timesteps)
    pipeline.scheduler.set_timesteps = first_mark

    def step_mark(*_):
        marks.append(time.perf_counter())
        return {}

    torch.manual_seed(request["seed"])
    with torch.inference_mode():
        frames = pipeline(generator=torch.Generator("cpu").manual_seed(request["seed"]),
                          output_type="np", callback_on_step_end=step_mark,
                          **call_arguments(request)).frames[0]
    steps = [b - a for a, b in zip(marks, marks[1:])]
    clock.add("denoise", sum(steps))
    np.save(args.out, np.asarray(frames, dtype=np.float32))
    with open(args.stats, "w", encoding="utf-8") as file:
        json.dump({"version": f"diffusers {diffusers.__version__}", "stages": clock.stages,
                   "step_seconds": steps,
                   "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
                  file)


if __name__ == "__main__":
    main()
