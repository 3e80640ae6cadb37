#!/usr/bin/env python3
"""What each lossy option costs the demo model: bytes of weights, frames, what the scorer sees, time.

Usage
  bench_lossy.py --kino-render build/bin/kino-render [--count 12] [--threads 1] [--markdown FILE] [--tiny]

Held-out prompts (tools/demo_model/held_out.py) are rendered with every option in turn, so that another program's load
falls on all alike. PSNR is against the lossless float32 frames, a mean over prompts; the scorer judges colour, motion,
background and shape; time is the fastest denoise step against the fastest in float32, which other programs disturb least.
Weights are those of text encoder and transformer: counted in the run, and as `kino-render plan` has them. Ends with status 1
where the two differ, and where frames are too far from the lossless ones to be the same clip.

--tiny: one prompt, two steps and an option of each kind, which show that all of this works; its times mean nothing.
"""
import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path[:0] = [HERE, os.path.join(ROOT, "tools", "demo_model"), os.path.join(ROOT, "tests", "parity")]

import compare  # noqa: E402
import engines  # noqa: E402
import gguf_k  # noqa: E402
import held_out  # noqa: E402
import kino_render  # noqa: E402
import provenance  # noqa: E402
import score  # noqa: E402

MODEL = os.path.join(ROOT, "models", "demo")
SCHEMES = ("int8", "int8wo", "int8dyn", "fp8wo", "fp8dyn", "nf4", "nf4_dq", "fp4", "fp4_dq", "q8_0", "q5_1", "q5_0",
           "q4_1", "q4_0")
# Everything but the VAE is in host memory and stays there, so that it is counted; the VAE only while it decodes.
PLACES = ["--offload", "none,vae=model", "--weights-home", "pageable,vae=file"]
# The worst of the schemes (fp4) has 29.
LOWEST_PSNR_DB = 20
TINY = ("float32, lossless", "bfloat16, lossless", "`--quantize int8`", "`--quantize nf4`",
        "`--storage-dtype float8_e4m3fn`", "Q4_K GGUF transformer")
ASPECTS = ("color", "motion", "background", "shape")


@dataclasses.dataclass
class Option:
    title: str
    flags: list
    dtype: str = "float32"
    measured: int = 0
    predicted: int = 0
    psnr: list = dataclasses.field(default_factory=list)
    scores: list = dataclasses.field(default_factory=list)
    steps: list = dataclasses.field(default_factory=list)


def options(folder):
    yield Option("float32, lossless", [])
    if provenance.has_bfloat16_instructions():
        yield Option("bfloat16, lossless", [], "bfloat16")
    for scheme in SCHEMES:
        yield Option(f"`--quantize {scheme}`", ["--quantize", scheme])
    for scheme in ("nf4", "int8"):
        yield Option(f"`--quantize text_encoder={scheme}`", ["--quantize", f"text_encoder={scheme}"])
    for dtype in ("float8_e4m3fn", "float8_e5m2"):
        yield Option(f"`--storage-dtype {dtype}`", ["--storage-dtype", dtype])
    for kind in ("Q8_0", "Q5_0", "Q4_K", "Q4_0"):
        path = os.path.join(folder, f"demo-{kind}.gguf")
        gguf_k.write_transformer(os.path.join(MODEL, "transformer"), path, kind)
        yield Option(f"{kind} GGUF transformer", ["--model", path])


def request(prompt):
    return {"task": "TEXT_TO_VIDEO", "prompt": prompt.text, "seed": prompt.seed, "fps": engines.FRAME_RATE,
            "ltx": {"frame_rate": engines.FRAME_RATE}, **engines.CALL}


def predicted_bytes(option, prompt, scratch):
    path = os.path.join(scratch, "request.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(request(prompt), file)
    done = subprocess.run(
        [kino_render.binary(), "plan", "--model", MODEL, "--request", path, "--json", "--dtype", option.dtype,
         *PLACES, *option.flags], check=True, capture_output=True, text=True)
    chosen = next(plan for plan in json.loads(done.stdout)["plans"] if plan.get("chosen"))
    return max(int(stage.get("weights_bytes", 0)) for stage in chosen["stages"]
               if stage["stage"] in ("ENCODE_TEXT", "DENOISE"))


def render(option, prompt, threads, scratch):
    stats_path = os.path.join(scratch, "stats.json")
    frames = kino_render.render(MODEL, request(prompt), dtype=option.dtype, threads=threads, stats=stats_path,
                                flags=[*PLACES, *option.flags])
    with open(stats_path, encoding="utf-8") as file:
        stats = json.load(file)
    option.measured = max(option.measured, *(stage["peak_weight_bytes"] for stage in stats["stages"]
                                             if stage["stage"] in ("encode_text", "denoise")))
    option.steps += stats["step_seconds"][1:]
    option.scores.append(score.score(score.to_uint8(frames), prompt.scene))
    return frames


def table(rows, args):
    lossless = rows[0]
    call = engines.CALL
    lines = ["## Lossy options on the demo model", "",
             f"{provenance.line()}; {args.threads} thread{'s' if args.threads > 1 else ''}; "
             f"{args.count} held-out prompts, {call['height']}x{call['width']}x{call['num_frames']}, "
             f"{call['num_inference_steps']} steps, guidance {call['guidance_scale']:g}; computed in float32 on the CPU but "
             "where a row says bfloat16. Weights: bytes of text encoder and transformer. PSNR against the first row, mean over "
             "prompts. Right: of colour, motion, background and shape of all clips. Time: of the fastest denoise step, "
             "the options taking turns.", "",
             f"    python tests/bench/bench_lossy.py --kino-render build/bin/kino-render --count {args.count} "
             "--markdown docs/benchmarks.md", "",
             "| option | weights | as planned | of float32 | PSNR (dB) | right | time |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        right = sum(getattr(each, aspect) for each in row.scores for aspect in ASPECTS)
        psnr = "" if row is lossless else f"{np.mean(row.psnr):.1f}"
        lines.append(
            f"| {row.title} | {row.measured:,} | {row.predicted:,} | {row.measured / lossless.measured:.3f} | {psnr} | "
            f"{right}/{len(row.scores) * len(ASPECTS)} | "
            f"{min(row.steps) / min(lossless.steps):.2f} |")
    if not any(row.dtype == "bfloat16" for row in rows):
        lines += ["", "bfloat16: not measured on this CPU, which has no instructions for it."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kino-render", required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.tiny:
        args.count = 1
        engines.CALL["num_inference_steps"] = 2
    os.environ["KINO_BIN_DIR"] = os.path.dirname(os.path.abspath(args.kino_render))
    prompts = held_out.prompts(args.count)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for row in options(scratch) if not args.tiny or row.title in TINY]
        for row in rows:
            row.predicted = predicted_bytes(row, prompts[0], scratch)
        for index, prompt in enumerate(prompts):
            for row in rows:
                frames = render(row, prompt, args.threads, scratch)
                if row is rows[0]:
                    want = frames
                else:
                    row.psnr.append(compare.psnr(want, frames))
            print(f"{index + 1}/{len(prompts)} {prompt.text}", flush=True)
    text = table(rows, args)
    provenance.publish(text, args.markdown)
    wrong = [row.title for row in rows if row.measured != row.predicted]
    if wrong:
        return f"weights are not as predicted: {', '.join(wrong)}"
    far = [row.title for row in rows[1:] if not min(row.psnr) >= LOWEST_PSNR_DB]
    return f"frames are not those asked for: {', '.join(far)}" if far else 0


if __name__ == "__main__":
    sys.exit(main())
