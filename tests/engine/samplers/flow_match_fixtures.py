#!/usr/bin/env python3
"""Records tables and steps of diffusers' FlowMatchEulerDiscreteScheduler. Floats are written as their bits.

Usage: flow_match_fixtures.py OUT SEED
OUT/cases.json: {"schedules": [...], "linear_quadratic": [...], "shifts": [...], "steps": [...], "token_steps": [...]}.
"""
import json
import random
import sys
import warnings

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from diffusers.utils import logging

logging.set_verbosity_error()


def bits(tensor):
    """The tensor's numbers as unsigned integers, row by row."""
    width = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}[tensor.dtype]
    mask = 0xFFFFFFFF if width is torch.int32 else 0xFFFF
    return [v & mask for v in tensor.detach().contiguous().view(width).flatten().tolist()]


def configs(rng):
    out = [
        {},
        {"shift": 3.0},
        {"shift": 7.0, "num_train_timesteps": 500},
        {"shift": 0.7},
        {"use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        {"use_dynamic_shifting": True, "shift_terminal": 0.1, "base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024},
        {"shift": 5.0, "shift_terminal": 0.02},
        {"invert_sigmas": True},
        {"invert_sigmas": True, "shift": 2.5},
        {"use_karras_sigmas": True, "shift": 3.0},
        {"use_exponential_sigmas": True},
        {"use_exponential_sigmas": True, "use_dynamic_shifting": True, "shift_terminal": 0.1},
        {"num_train_timesteps": 1},
    ]
    for _ in range(12):
        out.append({"shift": rng.uniform(0.2, 15), "num_train_timesteps": rng.randint(2, 2000), "use_dynamic_shifting": rng.random() < 0.5,
                    "shift_terminal": rng.choice([None, rng.uniform(0.01, 0.4)]), "time_shift_type": rng.choice(["exponential", "linear"]),
                    "invert_sigmas": rng.random() < 0.2})
    return out


def requests(rng):
    out = [{"num_inference_steps": n} for n in (1, 2, 3, 7, 25, 50, 1000)]
    for n in (1, 2, 3, 4, 8, 25, 30, 40, 50, 97):
        out.append({"sigmas": np.linspace(1.0, 1 / n, n).tolist()})
    out.append({"timesteps": [1000, 993, 987, 981, 975, 909, 725, 0.03]})
    out.append({"timesteps": [1000, 909, 725, 421, 0]})
    out.append({"timesteps": [1000, 500, 500, 250], "sigmas": [0.9, 0.6, 0.5, 0.1]})
    for n in (5, 30, 40):
        out.append({"timesteps": (linear_quadratic_schedule(n) * 1000).tolist()})
    for _ in range(10):
        out.append({"sigmas": sorted((rng.random() for _ in range(rng.randint(2, 40))), reverse=True)})
        out.append({"timesteps": sorted((rng.uniform(0.5, 1000) for _ in range(rng.randint(2, 40))), reverse=True)})
    return out


def schedules(rng):
    out = []
    for config in configs(rng):
        for request in requests(rng):
            mu = rng.uniform(0.3, 2.5) if config.get("use_dynamic_shifting") else None
            scheduler = FlowMatchEulerDiscreteScheduler(**config)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    scheduler.set_timesteps(**request, mu=mu)
                finite = bool(torch.isfinite(scheduler.sigmas).all())
            except (ValueError, OverflowError):  # log(0)
                finite = False
            out.append({"config": config, "request": request, "mu": mu, "finite": finite}
                       | ({"sigmas": bits(scheduler.sigmas), "timesteps": bits(scheduler.timesteps)} if finite else {}))
    return out


def steps(rng):
    """A whole loop of steps by table and dtype, each from where the last one ended."""
    out = []
    torch.manual_seed(rng.randrange(1 << 30))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(6)
        sample = torch.randn(2, 3, 5)
        loop = {"dtype": str(dtype).split(".")[1], "sigmas": bits(scheduler.sigmas), "sample": bits(sample), "outputs": [], "results": []}
        for t in scheduler.timesteps:
            model_output = torch.randn(2, 3, 5).to(dtype)
            sample = scheduler.step(model_output, t, sample, return_dict=False)[0]
            assert sample.dtype == dtype
            loop["outputs"].append(bits(model_output))
            loop["results"].append(bits(sample))
        out.append(loop)
    return out


def token_steps(rng):
    out = []
    torch.manual_seed(rng.randrange(1 << 30))
    for dtype in (torch.float32, torch.bfloat16):
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(timesteps=linear_quadratic_schedule(8) * 1000)
        sample = torch.randn(2, 4, 3)
        output = torch.randn(2, 4, 3).to(dtype)
        t = scheduler.timesteps[2]
        tokens = torch.minimum(t, (1 - torch.tensor([[0.0, 1.0, 0.3, 0.95], [0.5, 0.0, 0.0, 1.0]])) * 1000.0)
        result = scheduler.step(output, t, sample, per_token_timesteps=tokens, return_dict=False)[0]
        out.append({"dtype": str(dtype).split(".")[1], "sigmas": bits(scheduler.sigmas), "sample": bits(sample), "output": bits(output),
                    "tokens": bits(tokens), "result": bits(result)})
    return out


def main():
    rng = random.Random(int(sys.argv[2]))
    shifts = []
    for config in ({}, {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024}):
        for length in (1, 64, 256, 1024, 4096, 8192, 9240):
            mu = calculate_shift(length, config.get("base_image_seq_len", 256), 4096, config.get("base_shift", 0.5), config.get("max_shift", 1.15))
            shifts.append({"config": config, "length": length, "mu": mu})
    linear_quadratic = []
    for n in (1, 2, 3, 4, 5, 8, 25, 30, 40, 50, 64, 200, 1000):
        sigmas = linear_quadratic_schedule(n)
        linear_quadratic.append({"steps": n, "sigmas": bits(sigmas), "timesteps": bits(sigmas * 1000)})
    with open(sys.argv[1] + "/cases.json", "w") as f:
        json.dump({"schedules": schedules(rng), "linear_quadratic": linear_quadratic, "shifts": shifts, "steps": steps(rng),
                   "token_steps": token_steps(rng)}, f)


main()
