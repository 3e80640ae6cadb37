#!/usr/bin/env python3
"""Trains the demo model from nothing: geometries, tokenizer, VAE and transformer side by side, fine-tuning, assembly.

Usage
  train.py --out MODEL [--work FOLDER] [--scale 1] [--minutes N] [--device cpu|cuda] [--smoke]

  --scale    multiplies every stage's steps; 1 is the recipe (an hour and a half on two CPU cores)
  --minutes  ends each stage after its share of so many minutes instead (not repeatable step by step)
  --smoke    a few steps of every stage: proves that the pipeline runs and yields a loadable folder

Seeds are fixed. The numbers of a run still depend on the machine: it reproduces the scores, not the bits.
Then: evaluate.py MODEL
"""
import argparse
import concurrent.futures
import multiprocessing
import os
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import assemble
import common
import finetune_decoder
import geometry
import tokenizer
import train_transformer
import train_vae

STEPS = {"transformer": 1900, "pairs": 100, "conditions": 1900, "decoder": 5200, "encoder": 8500,
         "finetune": 1150}
# Of the wall time. The VAE's two stages run beside the transformer's three.
SHARES = {"transformer": .5, "pairs": .03, "conditions": .34, "decoder": .6, "encoder": .27,
          "finetune": .1}
DATA = {"geometries": 6000, "basis_clips": 500, "pool": 480}
SMOKE_STEPS = dict.fromkeys(STEPS, 3)
SMOKE_DATA = {"geometries": 48, "basis_clips": 40, "pool": 8}


def train_all(work, steps, data, seconds, device):
    workspace = common.Workspace(work)
    geometry.draw(workspace, data["geometries"], data["basis_clips"])
    tokenizer.train(workspace)
    with concurrent.futures.ProcessPoolExecutor(
            2, mp_context=multiprocessing.get_context("spawn")) as pool:
        vae = pool.submit(train_vae.train, work, steps["decoder"], steps["encoder"],
                          seconds["decoder"], seconds["encoder"], device)
        for future in (pool.submit(_train_transformer, work, steps, seconds, device), vae):
            future.result()
    finetune_decoder.train(work, steps["finetune"], data["pool"], seconds["finetune"], device)


def _train_transformer(work, steps, seconds, device):
    for stage in train_transformer.STAGES:
        train_transformer.train(work, stage, steps[stage], seconds[stage], device)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--work")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke and (args.minutes or args.scale != 1.0):
        parser.error("--smoke has its own numbers of steps")
    steps = SMOKE_STEPS if args.smoke else {k: max(1, round(v * args.scale))
                                            for k, v in STEPS.items()}
    seconds = {k: args.minutes * 60 * v if args.minutes else None for k, v in SHARES.items()}
    data = SMOKE_DATA if args.smoke else DATA
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or scratch
        train_all(work, steps, data, seconds, args.device)
        assemble.assemble(work, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
