#!/usr/bin/env python3
"""Records tables and steps of diffusers' EulerAncestralDiscreteScheduler. Floats are written as their bits.

Usage: euler_ancestral_fixtures.py OUT SEED
OUT/cases.json: {"schedules": [...], "steps": [...]}.
"""
import json
import random
import sys

import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers.utils import logging

logging.set_verbosity_error()


def bits(tensor):
    """The tensor's numbers as unsigned integers, row by row."""
    width = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}[tensor.dtype]
    mask = 0xFFFFFFFF if width is torch.int32 else 0xFFFF
    return [v & mask for v in tensor.detach().contiguous().view(width).flatten().tolist()]


def configs(rng):
    out = [{}, {"timestep_spacing": "leading"}, {"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"},
           {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, {"num_train_timesteps": 37}]
    for _ in range(6):
        out.append({"beta_start": rng.uniform(1e-5, 1e-3), "beta_end": rng.uniform(2e-3, 3e-2), "num_train_timesteps": rng.randint(100, 1200),
                    "beta_schedule": rng.choice(["linear", "scaled_linear"]),
                    "timestep_spacing": rng.choice(["linspace", "leading", "trailing"])})
    return out


def schedules(rng):
    out = []
    for config in configs(rng):
        counts = (1, 2, 3, 7, 20, 30, 37, rng.randint(38, 99), 100)
        for count in (n for n in counts if n <= config.get("num_train_timesteps", 1000)):
            scheduler = EulerAncestralDiscreteScheduler(**config)
            scheduler.set_timesteps(count)
            out.append({"config": config, "steps": count, "sigmas": bits(scheduler.sigmas), "timesteps": bits(scheduler.timesteps),
                        "init": bits(torch.as_tensor(scheduler.init_noise_sigma).reshape(1))})
    return out


def steps(rng):
    """A whole loop of steps by prediction and dtype, each from where the last one ended, with the noise that each drew."""
    out = []
    torch.manual_seed(rng.randrange(1 << 30))
    for prediction in ("epsilon", "v_prediction"):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            scheduler = EulerAncestralDiscreteScheduler(prediction_type=prediction)
            scheduler.set_timesteps(6)
            sample = (torch.randn(2, 3, 5) * scheduler.init_noise_sigma).to(dtype)
            loop = {"prediction": prediction, "dtype": str(dtype).split(".")[1], "sigmas": bits(scheduler.sigmas), "sample": bits(sample),
                    "inputs": [], "outputs": [], "noises": [], "results": []}
            for t in scheduler.timesteps:
                loop["inputs"].append(bits(scheduler.scale_model_input(sample, t)))
                output = torch.randn(2, 3, 5).to(dtype)
                generator = torch.Generator("cpu").manual_seed(rng.randrange(1 << 30))
                loop["noises"].append(bits(torch.randn(2, 3, 5, dtype=dtype, generator=generator.clone_state())))
                sample = scheduler.step(output, t, sample, generator=generator, return_dict=False)[0]
                assert sample.dtype == dtype
                loop["outputs"].append(bits(output))
                loop["results"].append(bits(sample))
            out.append(loop)
    return out


def main():
    rng = random.Random(int(sys.argv[2]))
    with open(sys.argv[1] + "/cases.json", "w") as f:
        json.dump({"schedules": schedules(rng), "steps": steps(rng)}, f)


main()
