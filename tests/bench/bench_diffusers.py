#!/usr/bin/env python3
"""Kino against diffusers on a mid-size random-weight model of a family, in one run on one machine.

Usage
  bench_diffusers.py --kino-render build/bin/kino-render --work FOLDER [--family FAMILY] [--vae 0.9.0|0.9.5]
                     [--dtypes float32,bfloat16] [--threads 2] [--repeats 3] [--steps 4] [--size 256x384x25]
                     [--markdown FILE] [--check-speed 1.1] [--tiny]

FAMILY: ltx, mochi, cogvideox, allegro or hunyuan. --vae is the generation of LTX-Video's.

The two take turns, each run in a process of its own, with the same request file and the same number of threads, which wait
passively in both. A number is the median over the repeats; seconds per step is the median over the steps but the first.
Processor time and peak resident memory are as the kernel counts them (wait4), the memory with the pages of mapped weight
files that were touched. Peak anonymous memory leaves those out, which the kernel can drop at any time: RssAnon of
/proc/PID/status, read every 5 ms, of both alike. Before anything is reported the frames are compared: float32 within 1e-3 of
each other, bfloat16 no further from diffusers' float32 (PSNR, 1 dB) than diffusers' own bfloat16. bfloat16 is left out on a
CPU without instructions for it.

--check-speed R ends with status 1 where seconds per step or decode are above R times diffusers'.
--markdown appends the table to a file.
--tiny: a checkpoint, a request and one repeat of seconds, which show that all of this works; its times mean nothing.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time

import numpy as np

import mid_size_allegro
import mid_size_cogvideox
import mid_size_hunyuan
import mid_size_ltx
import mid_size_mochi
import provenance

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = "An old sailor turns to the camera, soft shadows; warm tones"
NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"
ENGINES = ("diffusers", "kino")
ROWS = (("load (s)", "load"), ("text encode (s)", "encode_text"),
        ("denoise step (s)", "step"), ("VAE decode (s)", "decode"),
        ("whole process (s)", "process"), ("processor time of it (s)", "cpu"),
        ("peak resident memory (MiB)", "peak_mib"), ("peak anonymous memory (MiB)", "peak_anonymous_mib"))
SAMPLE_SECONDS = 0.005
FRAME_ERROR = 1e-3
PSNR_LOSS_DB = 1.0


class Ltx:
    TITLE, FPS, GUIDANCE, SIZE, TINY_SIZE = "LTX-Video", 24, 3.0, "256x384x25", "64x64x9"
    KNOBS = {"ltx": {"frame_rate": 24, "decode_timestep": 0.05, "decode_noise_scale": 0.025}}

    @staticmethod
    def build(folder, args):
        if args.tiny:
            mid_size_ltx.build(folder, mid_size_ltx.TINY_VAES[args.vae], **mid_size_ltx.TINY)
        else:
            mid_size_ltx.build(folder, args.vae)


class OfModule:
    """A family whose checkpoint a module of mid_size_* builds in one way."""
    KNOBS = {}

    @classmethod
    def build(cls, folder, args):
        cls.MODULE.build(folder, **(cls.MODULE.TINY if args.tiny else {}))


class Mochi(OfModule):
    MODULE = mid_size_mochi
    TITLE, FPS, GUIDANCE, SIZE, TINY_SIZE = "Mochi-1", 30, 4.5, "256x384x25", "64x64x7"


class CogVideoX(OfModule):
    MODULE = mid_size_cogvideox
    TITLE, FPS, GUIDANCE, SIZE, TINY_SIZE = "CogVideoX", 8, 6.0, "256x384x17", "64x64x9"


class Allegro(OfModule):
    MODULE = mid_size_allegro
    # One tile of the VAE's.
    TITLE, FPS, GUIDANCE, SIZE, TINY_SIZE = "Allegro", 15, 7.5, "320x320x24", "160x160x24"


class Hunyuan(OfModule):
    MODULE = mid_size_hunyuan
    # The guidance is a number that the network sees: one pass a step.
    TITLE, FPS, GUIDANCE, SIZE, TINY_SIZE = "HunyuanVideo", 15, 6.0, "256x384x25", "64x64x9"


FAMILIES = {"ltx": Ltx, "mochi": Mochi, "cogvideox": CogVideoX, "allegro": Allegro, "hunyuan": Hunyuan}


def write_request(path, family, size, steps):
    height, width, frames = size
    request = {"task": "TEXT_TO_VIDEO", "prompt": PROMPT, "negative_prompt": NEGATIVE,
               "height": height, "width": width, "num_frames": frames,
               "num_inference_steps": steps, "guidance_scale": family.GUIDANCE, "seed": 11, "fps": family.FPS,
               **family.KNOBS}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(request, file)


class AnonymousPeak(threading.Thread):
    """The most anonymous memory that a process is seen to have, in bytes, until stop()."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self._path = f"/proc/{pid}/status"
        self._stopped = threading.Event()
        self._peak = 0

    def run(self):
        while not self._stopped.wait(SAMPLE_SECONDS):
            try:
                with open(self._path, encoding="utf-8") as file:
                    line = next((line for line in file if line.startswith("RssAnon:")), None)
            except (FileNotFoundError, ProcessLookupError):  # it has ended
                return
            if line is not None:  # one that is ending has no memory any more
                self._peak = max(self._peak, int(line.split()[1]) * 1024)

    def stop(self):
        self._stopped.set()
        self.join()
        return self._peak


def run_once(engine, args, request, dtype):
    """One process; returns its numbers (see ROWS), its version and the path of its frames."""
    out = os.path.join(args.work, f"{engine}_{dtype}.npy")
    stats_path = os.path.join(args.work, f"{engine}_{dtype}.json")
    command = [args.kino_render, "--device", "cpu", "--threads", str(args.threads)] if engine == "kino" else [
        sys.executable, os.path.join(HERE, "diffusers_render.py")]
    command += ["--model", os.path.join(args.folder, "model"), "--request", request,
                "--out", out, "--stats", stats_path, "--dtype", dtype]
    log_path = os.path.join(args.work, f"{engine}.log")
    start = time.perf_counter()
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={
            **os.environ, "OMP_NUM_THREADS": str(args.threads),
            "MKL_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "passive"})
        anonymous = AnonymousPeak(process.pid)
        anonymous.start()
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    anonymous_bytes = anonymous.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        with open(log_path, encoding="utf-8", errors="replace") as log:
            sys.exit(f"{' '.join(command)}: status {process.returncode}\n{log.read()[-3000:]}")
    with open(stats_path, encoding="utf-8") as file:
        stats = json.load(file)
    numbers = {s["stage"]: s["seconds"] for s in stats["stages"]}
    steps = stats["step_seconds"]
    numbers["step"] = statistics.median(steps[1:] or steps)
    numbers["process"] = seconds
    numbers["cpu"] = usage.ru_utime + usage.ru_stime
    numbers["peak_mib"] = usage.ru_maxrss / 1024
    numbers["peak_anonymous_mib"] = anonymous_bytes / 2 ** 20
    print(f"{engine} {dtype}: " + "  ".join(f"{k} {numbers[k]:.2f}" for _, k in ROWS), flush=True)
    return numbers, stats["version"], out


def psnr(want, got):
    return -10 * np.log10(np.mean((want.astype(np.float64) - got) ** 2) + 1e-30)


def check_frames(frames):
    """`frames`: {(engine, dtype): array}; ends the program where Kino's are not the ones asked for."""
    lines = []
    for dtype in sorted({d for _, d in frames}, reverse=True):
        theirs, ours = frames["diffusers", dtype], frames["kino", dtype]
        if theirs.shape != ours.shape:
            sys.exit(f"{dtype}: frames {ours.shape}, diffusers' {theirs.shape}")
        if dtype == "float32":
            error = float(np.abs(theirs - ours).max())
            lines.append(f"float32 frames: max abs difference {error:.1e}")
            if not error <= FRAME_ERROR:
                sys.exit(f"float32 frames differ by {error:.1e}, allowed {FRAME_ERROR}: no numbers")
        elif ("diffusers", "float32") in frames:
            reference = frames["diffusers", "float32"]
            a, b = psnr(reference, theirs), psnr(reference, ours)
            lines.append(f"{dtype} frames against diffusers' float32: PSNR {b:.1f} dB, "
                         f"diffusers' {a:.1f} dB")
            if not b >= a - PSNR_LOSS_DB:
                sys.exit(f"{dtype}: PSNR {b:.1f} dB, diffusers' {a:.1f} dB: no numbers")
    return lines


def table(results, versions, where, notes, args):
    family = FAMILIES[args.family]
    generation = f"; {args.vae} VAE" if args.family == "ltx" else ""
    lines = [f"### {family.TITLE}, {'tiny' if args.tiny else 'mid-size'} ({mid_size_ltx.sizes(args.folder)}{generation})", "",
             f"{where}; {args.threads} threads, which wait passively; "
             f"{versions['kino']} against {versions['diffusers']}, torch {versions['torch']}; "
             f"{args.size} (height x width x frames), {args.steps} steps, guidance {family.GUIDANCE:g}; "
             f"medians of {args.repeats} runs, taking turns.", ""]
    notes = [*notes, *(f"{dtype}: not measured on this CPU, which has no instructions for it" for dtype in args.left_out)]
    for dtype, by_engine in results.items():
        lines += [f"| {dtype} | diffusers | Kino | Kino / diffusers |", "|---|---|---|---|"]
        for title, key in ROWS:
            a, b = (by_engine[e][key] for e in ENGINES)
            lines.append(f"| {title} | {a:.2f} | {b:.2f} | {b / a:.2f} |")
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kino-render", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="ltx")
    parser.add_argument("--vae", choices=sorted(mid_size_ltx.VAES), default="0.9.5")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--size")
    parser.add_argument("--markdown")
    parser.add_argument("--check-speed", type=float)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    where = provenance.line()
    dtypes = args.dtypes.split(",")
    args.left_out = [d for d in dtypes if d == "bfloat16" and not provenance.has_bfloat16_instructions()]
    family = FAMILIES[args.family]
    args.folder = os.path.join(args.work, args.vae if args.family == "ltx" else args.family)
    args.size = args.size or family.SIZE
    if args.tiny:
        args.size, args.steps, args.repeats = family.TINY_SIZE, 2, 1
    family.build(args.folder, args)
    request = os.path.join(args.work, "request.json")
    write_request(request, family, tuple(int(n) for n in args.size.split("x")), args.steps)

    import torch
    versions = {"torch": torch.__version__}
    results, frames = {}, {}
    for dtype in dtypes:
        if dtype in args.left_out:
            continue
        runs = {engine: [] for engine in ENGINES}
        for repeat in range(args.repeats):
            for engine in ENGINES if repeat % 2 == 0 else reversed(ENGINES):
                numbers, version, out = run_once(engine, args, request, dtype)
                runs[engine].append(numbers)
                versions[engine] = f"Kino {version}" if engine == "kino" else version
                frames[engine, dtype] = np.load(out)
        results[dtype] = {engine: {key: statistics.median(r[key] for r in rows)
                                   for _, key in ROWS} for engine, rows in runs.items()}
    notes = check_frames(frames)
    text = table(results, versions, where, notes, args)
    provenance.publish(text, args.markdown)
    if args.check_speed:
        slow = [f"{dtype} {key}: {r['kino'][key] / r['diffusers'][key]:.2f}"
                for dtype, r in results.items() for key in ("step", "decode")
                if r["kino"][key] > args.check_speed * r["diffusers"][key]]
        if slow:
            sys.exit(f"slower than {args.check_speed} times diffusers: {', '.join(slow)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
