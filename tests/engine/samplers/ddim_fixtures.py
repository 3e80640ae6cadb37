#!/ usr / bin / env python3
"""Records tables and steps of diffusers' CogVideoXDDIMScheduler and CogVideoXDPMScheduler. Tensors are written as their bits.

Usage: ddim_fixtures.py OUT SEED
OUT/cases.json: {"schedules": [...], "loops": [...], "noised": [...]}.
"""
import json
import random
import sys

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler

BASE = {"prediction_type": "v_prediction", "clip_sample": False}
PUBLISHED = {**BASE, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def bits(tensor):
    """The tensor's numbers as unsigned integers, row by row."""
    width = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[tensor.dtype]
    mask = 0xFFFFFFFF if width is torch.int32 else 0xFFFF
    return [v & mask for v in tensor.detach().contiguous().view(width).flatten().tolist()]


def schedules(rng):
    configs = [{**PUBLISHED, "snr_shift_scale": 3.0}, {**PUBLISHED, "snr_shift_scale": 1.0}, BASE,
               {**BASE, "timestep_spacing": "linspace", "set_alpha_to_one": False},
               {**BASE, "steps_offset": 1, "num_train_timesteps": 777, "beta_start": 0.0001, "beta_end": 0.02}]
    out = []
    for config in configs:
        most = config.get("num_train_timesteps", 1000)
        counts = range(1, most + 1) if config is configs[0] else [1, 2, 3, 7, 50, most, *rng.sample(range(4, most), 20)]
        for count in counts:
            scheduler = CogVideoXDDIMScheduler(**config)
            scheduler.set_timesteps(count)
            timesteps = scheduler.timesteps.tolist()
            if max(timesteps) >= most:  # an offset leads out of the table
                continue
            following = [t - most // count for t in timesteps]
            out.append({"config": config, "steps": count, "timesteps": timesteps,
                        "alphas": [scheduler.alphas_cumprod[t].item() for t in timesteps],
                        "next_alphas": [(scheduler.alphas_cumprod[t] if t >= 0 else scheduler.final_alpha_cumprod).item()
                                        for t in following]})
    return out


def loops(rng):
    """Whole loops by sampler, table and dtype, from the first step and from a later one."""
    out = []
    for make in (CogVideoXDDIMScheduler, CogVideoXDPMScheduler):
        for config in ({**PUBLISHED, "snr_shift_scale": 3.0}, {**PUBLISHED, "snr_shift_scale": 1.0}, BASE):
            for dtype, first in ((torch.float32, 0), (torch.float32, 2), (torch.bfloat16, 0)):
                scheduler = make(**config)
                scheduler.set_timesteps(6)
                seed = rng.randrange(1 << 30)
                generator = torch.Generator().manual_seed(seed)
                sample = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
                loop = {"class": make.__name__, "config": config, "dtype": str(dtype).split(".")[1], "first": first, "seed": seed,
                        "sample": bits(sample), "outputs": [], "results": []}
                before, back = None, None
                for t in scheduler.timesteps[first:]:
                    output = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(int(t)))
                    if make is CogVideoXDDIMScheduler:
                        sample = scheduler.step(output, t, sample, generator=generator, return_dict=False)[0]
                    else:
                        sample, before = scheduler.step(output, before, t, back, sample, generator=generator)
                    sample, back = sample.to(dtype), t
                    loop["outputs"].append(bits(output))
                    loop["results"].append(bits(sample))
                out.append(loop)
    return out


def noised():
    out = []
    for dtype in (torch.float32, torch.bfloat16):
        scheduler = CogVideoXDDIMScheduler(**PUBLISHED)
        original, noise = (torch.randn(24, generator=torch.Generator().manual_seed(s)).to(dtype) for s in (3, 4))
        for t in (999, 799, 31, 0):
            out.append({"dtype": str(dtype).split(".")[1], "alpha": scheduler.alphas_cumprod[t].item(), "original": bits(original),
                        "noise": bits(noise), "result": bits(scheduler.add_noise(original, noise, torch.tensor([t])))})
    return out


rng = random.Random(int(sys.argv[2]))
with open(sys.argv[1] + "/cases.json", "w") as f:
    json.dump({"schedules": schedules(rng), "loops": loops(rng), "noised": noised()}, f)
