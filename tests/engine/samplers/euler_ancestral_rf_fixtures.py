#!/usr/bin/env python3
"""Records tables and steps of diffusers' LTXEulerAncestralRFScheduler. Floats are written as their bits.

Usage: euler_ancestral_rf_fixtures.py OUT SEED
OUT/cases.json: {"schedules": [...], "steps": [...]}.
"""
import json
import random
import sys

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXEulerAncestralRFScheduler
from diffusers.utils import logging

logging.set_verbosity_error()

PUBLISHED = [1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219, 0.0]


def bits(tensor):
    """The tensor's numbers as unsigned integers, row by row."""
    width = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}[tensor.dtype]
    mask = 0xFFFFFFFF if width is torch.int32 else 0xFFFF
    return [v & mask for v in tensor.detach().contiguous().view(width).flatten().tolist()]


def scheduler_of(table, **config):
    """The scheduler as users make it, out of a flow-match one, whose keys it keeps."""
    return LTXEulerAncestralRFScheduler.from_config({**FlowMatchEulerDiscreteScheduler(**table).config, **config})


def schedules(rng):
    out = []
    tables = [{}, {"shift": 3.0}, {"shift_terminal": 0.1}, {"use_karras_sigmas": True}, {"num_train_timesteps": 500},
              {"shift": rng.uniform(0.5, 8)}]
    lists = [PUBLISHED, [1.0, 0.5], [0.725, 0.4219, 0.1], sorted((rng.random() for _ in range(9)), reverse=True)]
    for table in tables:
        for request in [{"num_inference_steps": n} for n in (2, 3, 8, 30)] + [{"sigmas": values} for values in lists]:
            scheduler = scheduler_of(table)
            scheduler.set_timesteps(**request)
            out.append({"config": dict(scheduler.config), "request": request, "sigmas": bits(scheduler.sigmas),
                        "timesteps": bits(scheduler.timesteps)})
    return out


def steps(rng):
    """Whole loops of steps, each from where the last one ended, with the noise that each drew (empty: none)."""
    out = []
    torch.manual_seed(rng.randrange(1 << 30))
    configs = [{}, {"eta": 0.0}, {"eta": 0.4}, {"s_noise": 0.7}, {"s_noise": 0.0}, {"eta": rng.uniform(0.1, 1), "s_noise": rng.uniform(0.5, 1.5)}]
    for config in configs:
        for dtype in (torch.float32, torch.bfloat16):
            scheduler = scheduler_of({}, **config)
            scheduler.set_timesteps(sigmas=PUBLISHED if rng.random() < 0.5 else sorted((rng.random() for _ in range(6)), reverse=True) + [0.0])
            sample = torch.randn(2, 3, 5).to(dtype)
            loop = {"config": {"_class_name": "LTXEulerAncestralRFScheduler", **config}, "dtype": str(dtype).split(".")[1],
                    "sigmas": bits(scheduler.sigmas), "sample": bits(sample), "outputs": [], "noises": [], "results": []}
            for t in scheduler.timesteps[:-1]:
                output = torch.randn(2, 3, 5).to(dtype)
                generator = torch.Generator("cpu").manual_seed(rng.randrange(1 << 30))
                before = generator.clone_state()
                sample = scheduler.step(output, t, sample, generator=generator, return_dict=False)[0]
                assert sample.dtype == dtype
                drawn = not torch.equal(before.get_state(), generator.get_state())
                loop["noises"].append(bits(torch.randn(2, 3, 5, generator=before)) if drawn else [])
                loop["outputs"].append(bits(output))
                loop["results"].append(bits(sample))
            out.append(loop)
    return out


def main():
    rng = random.Random(int(sys.argv[2]))
    with open(sys.argv[1] + "/cases.json", "w") as f:
        json.dump({"schedules": schedules(rng), "steps": steps(rng)}, f)


main()
