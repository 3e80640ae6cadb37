#!/usr/bin/env python3
"""Builds a tiny random-weight video pipeline in the standard diffusers folder format, runs it with Hugging Face
diffusers on the CPU in float32, and saves the request and the expected frames.

Usage
  make_tiny_pipelines.py --family ltx --task t2v --variant 0 --seed 1234 --out out/ltx
  make_tiny_pipelines.py --all --out out/all         (every family and task, variants 0..3)

Arguments
  --family   ltx | hunyuan | cogvideox | mochi | allegro
  --task     t2v (all) | i2v (ltx, hunyuan, cogvideox) | v2v (ltx, cogvideox) | control (cogvideox)
             | condition, long (ltx: LTXConditionPipeline and LTXI2VLongMultiPromptPipeline)
             | framepack (hunyuan)
             | upsample (ltx: the latent upsampler pipeline, fed with a video)
  --variant  integer N >= 0. It picks the checkpoint style (see oracle/families/) and, through a random stream seeded
             with N, the layer counts, widths, head counts, weights, prompt, size and steps.
  --seed     seed of the torch.Generator given to the pipeline (and of torch's global generator)
  --dtype    float32 (default) | bfloat16: type of the saved weights and of the run
  --tiling   also call enable_vae_tiling() and slicing with small tiles (recorded in request.json)
  --taps     also write the run's intermediates (see oracle/taps.py) into OUT/taps
  --out DIR  output folder

Writes
  DIR/model/            the pipeline folder: model_index.json and one subfolder per component
  DIR/request.json      pipeline class, task, prompt, negative prompt, height, width, num_frames, steps,
                        guidance, seed, fps and every other non-default call argument
  DIR/kino_request.json the same as kino-render reads it
  DIR/expected.npy      float32 frames [T, H, W, 3] in 0..1
  DIR/expected_latents.npy  the latents as output_type="latent" gives them, float32
  DIR/tokens.json       the token ids of every prompt and of some awkward strings
  DIR/input_image.png, DIR/input_last_image.png, DIR/input_video.npy (uint8 [T, H, W, 3]), DIR/input_video_000.png ...  where
                        the task needs them

The expected frames come from the pipeline RELOADED from DIR/model, so they are what a reader of that folder must
reproduce. Weights are drawn from a private generator and scaled so that the frames are neither flat nor clipped; norm
weights, biases, scale/shift tables, latent statistics and rotary frequencies are all random too.
"""
import argparse
import os
import sys
import time

from oracle import families
from oracle.build import build, expect
from oracle.run import load_pipeline
import kino_request

import torch


def make(args, family, task, variant, folder):
    start = time.time()
    dtype = getattr(torch, args.dtype)
    request = build(family, task, variant, args.seed, folder, dtype, args.tiling)
    frames, latents, seconds = expect(folder, request, dtype)
    kino_request.write(folder)
    if args.taps:
        from oracle.taps import run_with_taps
        run_with_taps(load_pipeline(folder, request, dtype), request, folder,
                      os.path.join(folder, "taps"))
    model = os.path.join(folder, "model")
    size = sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(model)
               for n in names)
    clipped = float(((frames <= 0) | (frames >= 1)).mean())
    print(f"{family:9s} {task:8s} v{variant} {request['pipeline_class']:36s} "
          f"frames {frames.shape} latents {latents.shape} model {size / 1e6:.2f} MB "
          f"run {seconds:.2f}s total {time.time() - start:.1f}s mean {frames.mean():.3f} "
          f"std {frames.std():.3f} clipped {clipped:.3f}", flush=True)


def make_all(args):
    failed = False
    for family in families.NAMES:
        for task in families.family(family).TASKS:
            for variant in range(4):
                folder = os.path.join(args.out, f"{family}-{task}-{variant}")
                try:
                    make(args, family, task, variant, folder)
                except Exception as error:  # say so and go on with the others
                    failed = True
                    print(f"{family:9s} {task:8s} v{variant} FAILED: {type(error).__name__}: "
                          f"{str(error)[:300]}", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=sorted(families.NAMES))
    parser.add_argument("--task", default="t2v")
    parser.add_argument("--variant", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--tiling", action="store_true")
    parser.add_argument("--taps", action="store_true")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: leave as is)")
    parser.add_argument("--all", action="store_true",
                        help="every family and task, variants 0..3, one folder each")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.all:
        sys.exit(make_all(args))
    if not args.family:
        parser.error("--family or --all is needed")
    if args.task not in families.family(args.family).TASKS:
        parser.error(f"tasks of {args.family}: {', '.join(families.family(args.family).TASKS)}")
    make(args, args.family, args.task, args.variant, args.out)


if __name__ == "__main__":
    main()
