"""What a GPU would launch, move and compute for one denoise step and one VAE decode: Kino's trace against diffusers' eager pipeline
on fake tensors. No GPU, no weights.

    python tests/bench/count_diffusers.py --kino-render build/bin/kino-render --work DIR --markdown docs/benchmarks.md [--tiny]

--tiny: two blocks of each transformer. --json FILE writes the figures; --operators prints what diffusers' kernels are. The rules of counting are those of
engine/core/kernel_counter.h and fake_counter.py. A step of Kino is the mean of a run's, with its share of what is prepared once.
"""
import argparse
import json
import os
import subprocess
import sys

import torch
from diffusers import AutoencoderKLLTXVideo, AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, LTXPipeline
from diffusers import LTXVideoTransformer3DModel, MochiTransformer3DModel
from diffusers.video_processor import VideoProcessor

import fake_counter
import plan_table
import provenance

DTYPE = torch.bfloat16


class Ltx:
    """diffusers 0.42.1 pipelines/ltx/pipeline_ltx.py, __call__."""
    tokens, steps = 128, 50
    guidance = 3.0

    def __init__(self, transformer, vae):
        self.make = lambda **layers: (LTXVideoTransformer3DModel(**transformer | layers), AutoencoderKLLTXVideo(**vae))
        self.index, self.scheduler = plan_table.LTX_INDEX, plan_table.LTX_SCHEDULER

    def request(self):
        return {"ltx": {"max_sequence_length": self.tokens}}

    def latents(self, config, height, width, frames):
        shape = (frames - 1) // 8 + 1, height // 32, width // 32
        self.shape = shape
        return torch.empty(1, shape[0] * shape[1] * shape[2], config.in_channels, dtype=torch.float32, device="cuda")

    def step(self, transformer, scheduler, latents, prompts, mask, t):
        model_input = torch.cat([latents] * 2).to(prompts.dtype)
        prediction = transformer(
            hidden_states=model_input, encoder_hidden_states=prompts, timestep=t.expand(2), encoder_attention_mask=mask,
            num_frames=self.shape[0], height=self.shape[1], width=self.shape[2], rope_interpolation_scale=(8 / 25, 32, 32),
            return_dict=False)[0].float()
        negative, positive = prediction.chunk(2)
        prediction = negative + self.guidance * (positive - negative)
        return scheduler.step(prediction, t, latents, return_dict=False)[0]

    def decode(self, vae, latents):
        latents = LTXPipeline._unpack_latents(latents, *self.shape)
        latents = LTXPipeline._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor).to(DTYPE)
        timestep = None
        if vae.config.timestep_conditioning:
            noise = torch.randn(latents.shape, dtype=latents.dtype, device=latents.device)
            timestep = torch.empty(1, dtype=latents.dtype, device="cuda")
            scale = torch.empty(1, 1, 1, 1, 1, dtype=latents.dtype, device="cuda")
            latents = (1 - scale) * latents + scale * noise
        return vae.decode(latents.to(DTYPE), timestep, return_dict=False)[0]


class Mochi:
    """diffusers 0.42.1 pipelines/mochi/pipeline_mochi.py, __call__, in bfloat16 as a whole (no autocast)."""
    tokens, steps = 256, 64
    guidance = 4.5

    def __init__(self, transformer, vae):
        self.make = lambda **layers: (MochiTransformer3DModel(**transformer | layers), AutoencoderKLMochi(**vae))
        self.index, self.scheduler = plan_table.MOCHI_INDEX, plan_table.MOCHI_SCHEDULER

    def request(self):
        return {"mochi": {"max_sequence_length": self.tokens}}

    def latents(self, config, height, width, frames):
        return torch.empty(1, config.in_channels, (frames - 1) // 6 + 1, height // 8, width // 8, dtype=DTYPE, device="cuda")

    def step(self, transformer, scheduler, latents, prompts, mask, t):
        model_input = torch.cat([latents] * 2)
        prediction = transformer(hidden_states=model_input, encoder_hidden_states=prompts, timestep=t.expand(2).to(latents.dtype),
                                 encoder_attention_mask=mask, return_dict=False)[0].to(torch.float32)
        negative, positive = prediction.chunk(2)
        prediction = negative + self.guidance * (positive - negative)
        return scheduler.step(prediction, t, latents.to(torch.float32), return_dict=False)[0].to(latents.dtype)

    def decode(self, vae, latents):
        mean, deviation = (torch.empty(1, vae.config.latent_channels, 1, 1, 1, dtype=latents.dtype, device="cuda") for _ in range(2))
        return vae.decode(latents * deviation / vae.config.scaling_factor + mean, return_dict=False)[0]


MODELS = {
    "LTX-Video 2B": (Ltx(*plan_table.MODELS["2B"]), (512, 768, 121)),
    "LTX-Video 13B": (Ltx(*plan_table.MODELS["13B"]), (512, 768, 121)),
    "Mochi-1": (Mochi({}, {}), (480, 848, 163)),
}
# Of --tiny. Sizes cost nothing: no tensor has bytes.
TINY_LAYERS = {"num_layers": 2}


def count(run):
    with fake_counter.Counts() as counts:
        result = run()
    return counts, result


def of_diffusers(model, size):
    """Counts of one step and of the decode."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(model.scheduler)
    scheduler.set_timesteps(model.steps, mu=1.0)
    with fake_counter.fake_gpu():
        torch.set_default_dtype(DTYPE)
        with torch.device("cuda"):
            transformer, vae = (module.eval() for module in model.make())
        torch.set_default_dtype(torch.float32)
        scheduler.sigmas = torch.empty(model.steps + 1, dtype=torch.float32, device="cuda")
        timesteps = torch.empty(model.steps, dtype=torch.float32, device="cuda")
        scheduler.set_begin_index(0)
        latents = model.latents(transformer.config, *size)
        width = getattr(transformer.config, "caption_channels", None) or transformer.config.text_embed_dim
        prompts = torch.empty(2, model.tokens, width, dtype=DTYPE, device="cuda")
        mask = torch.empty(2, model.tokens, dtype=torch.bool, device="cuda")
        # The first step finds its place in the schedule.
        model.step(transformer, scheduler, latents, prompts, mask, timesteps[0])
        step, latents = count(lambda: model.step(transformer, scheduler, latents, prompts, mask, timesteps[1]))

        def decode():
            video = model.decode(vae, latents)
            return VideoProcessor(vae_scale_factor=8).postprocess(video[0].permute(1, 0, 2, 3), output_type="pt")
        decoded, frames = count(decode)
        assert tuple(frames.shape) == (size[2], 3, *size[:2]), frames.shape
    return {"step": figures(step), "decode": figures(decoded)}, {"step": step, "decode": decoded}


def figures(counts):
    return {"tflop": counts.flops / 1e12, "launches": counts.launches, "bytes": counts.bytes,
            "roofline_seconds": counts.roofline_seconds}


def of_kino(kino_render, model, size, folder, text_layers):
    with torch.device("meta"):
        transformer, vae = model.make()
    plan_table.write_model(folder, transformer, vae, model.index, model.scheduler, text_layers)
    request = os.path.join(folder, "request.json")
    with open(request, "w", encoding="utf-8") as file:
        json.dump({"prompt": "x " * 200, "height": size[0], "width": size[1], "num_frames": size[2], "guidance_scale": model.guidance,
                   "num_inference_steps": model.steps, **model.request()}, file)
    done = subprocess.run([kino_render, "plan", "--model", folder, "--request", request, "--device", "cuda:0", "--dtype", "bfloat16",
                           "--offload", "none", "--weights-home", "file", "--max-device-memory", "1TiB", "--json"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    # The plan that changes no activations.
    plan = next(p for p in json.loads(done.stdout)["plans"]
                if "vae_tiling" not in p["plan"] and "chunk_feed_forward" not in p["plan"])
    found = {}
    for name, stage, times in (("step", "DENOISE", model.steps), ("decode", "DECODE", 1)):
        of_stage = next(each for each in plan["stages"] if each["stage"] == stage)
        kernels = of_stage["kernels"]
        found[name] = {"tflop": of_stage["flops"] / times / 1e12, "launches": kernels["launches"] / times,
                       "bytes": (kernels["bytes_read"] + kernels["bytes_written"]) / times,
                       "roofline_seconds": kernels["roofline_seconds"] / times}
    return found


def of_clip(side, steps):
    """All steps and the decode."""
    return {what: steps * side["step"][what] + side["decode"][what] for what in side["step"]}


def table(results):
    """A row for a step, the decode and all of it; of each figure diffusers' and Kino's, and what Kino's is of diffusers'."""
    columns = (("TFLOP", "tflop", 1, "{:,.2f}"), ("GB moved", "bytes", 1e9, "{:,.1f}"), ("launches", "launches", 1, "{:,.0f}"),
               ("roofline (ms)", "roofline_seconds", 1e-3, "{:,.1f}"))
    text = ("| model | " + " | ".join(f"{name}: diffusers | Kino | ratio" for name, *_ in columns) + " |\n"
            "|---|" + "---|---|---|" * len(columns) + "\n")
    for name, result in results.items():
        sides = [{**result[side], "clip": of_clip(result[side], result["steps"])} for side in ("diffusers", "kino")]
        for part, words in (("step", f"{name} {result['size']}: step"), ("decode", "decode"),
                            ("clip", f"{result['steps']} steps and decode")):
            text += f"| {words} |"
            for _, what, unit, form in columns:
                theirs, ours = (side[part][what] / unit for side in sides)
                text += f" {form.format(theirs)} | {form.format(ours)} | {ours / theirs:.2f} |"
            text += "\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kino-render", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--markdown", help="append the table to this page")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--operators", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.models:
        model, size = MODELS[name]
        if arguments.tiny:
            make = model.make
            model.make = lambda make=make: make(**TINY_LAYERS)
        theirs, counts = of_diffusers(model, size)
        ours = of_kino(arguments.kino_render, model, size, os.path.join(arguments.work, name.replace(" ", "_")),
                       2 if arguments.tiny else 24)
        results[name] = {"size": "x".join(map(str, size)), "steps": model.steps, "diffusers": theirs, "kino": ours}
        if arguments.operators:
            for part, each in counts.items():
                for operator, (launches, moved) in sorted(each.by_operator.items(), key=lambda item: -item[1][1]):
                    print(f"{name} {part}: {operator} {launches} launches, {moved / 1e9:.3f} GB")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    peak, bandwidth = fake_counter.FLOPS_PER_SECOND / 1e12, fake_counter.BYTES_PER_SECOND / 1e12
    text = (f"## What a GPU would do, counted\n\n{provenance.line()}; **counted from shapes, run by no GPU**: bfloat16, guidance (two "
            f"passes), {Ltx.tokens} text tokens for LTX-Video and {Mochi.tokens} for Mochi-1, VAEs untiled; diffusers 0.42.1 eager "
            f"without autocast. Roofline: the sum over kernels of what takes longer, computing at {peak:.0f} TFLOP/s or moving at "
            f"{bandwidth} TB/s (H200, dense bfloat16).\n\n"
            "    python tests/bench/count_diffusers.py --kino-render build/bin/kino-render --work DIR --markdown docs/benchmarks.md\n\n"
            + table(results))
    provenance.publish(text, arguments.markdown)


if __name__ == "__main__":
    main()
