#!/usr/bin/env python3
"""Renders prompts that training never saw and prints the scores; see held_out.py and score.py.

Usage
  evaluate.py MODEL [--count 48] [--task t2v|i2v|v2v|middle] [--engine diffusers|kino] [--kino-render PATH]
              [--steps 25] [--guidance 4] [--dtype float32] [--training-style] [--sheet FILE.png] [--quiet]

--training-style asks in the commonest training sentence instead, as the model card's numbers were taken.
--sheet draws the first 24 clips, five frames each, and the first and the last given frame before them.
"""
import argparse
import sys
import time

import numpy as np

import engines
import held_out
import scenes
import score
import tasks

SHEET_FRAMES = (0, 4, 8, 12, 16)


def plain_sentence(scene):
    geometry = scene.geometry
    thing = scenes.article(f"{scene.color} {geometry.shape}")
    ground = scenes.article(scene.background + " background")
    return f"{thing} {scenes.PHRASES[geometry.motion][0]} over {ground}"


def run(engine, prompts, task, **call):
    """Yields (prompt, frames uint8, score, tasks.Given or None, seconds)."""
    for prompt in prompts:
        given = tasks.given(task, prompt.scene)
        start = time.monotonic()
        frames = engine.render(prompt.text, prompt.seed, given, **call)
        seconds = time.monotonic() - start
        frames = score.to_uint8(frames)
        yield prompt, frames, score.score(frames, prompt.scene, given), given, seconds


def sheet(clips, path):
    """`clips`: lists of uint8 [H, W, 3] pictures; drawn in two columns of rows."""
    import PIL.Image
    rows = [np.concatenate(clip, 1) for clip in clips]
    half = (len(rows) + 1) // 2
    rows += [np.full_like(rows[0], 255)] * (2 * half - len(rows))
    gap = np.full((half * rows[0].shape[0], 4, 3), 255, np.uint8)
    columns = [np.concatenate(rows[:half]), gap, np.concatenate(rows[half:])]
    PIL.Image.fromarray(np.concatenate(columns, 1)).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--task", choices=tasks.TASKS, default="t2v")
    parser.add_argument("--engine", choices=["diffusers", "kino"], default="diffusers")
    parser.add_argument("--kino-render", default="build/bin/kino-render")
    parser.add_argument("--steps", type=int, default=engines.CALL["num_inference_steps"])
    parser.add_argument("--guidance", type=float, default=engines.CALL["guidance_scale"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--training-style", action="store_true")
    parser.add_argument("--sheet")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    if args.engine == "kino":
        engine = engines.KinoRender(args.model, args.kino_render, args.dtype)
    else:
        engine = engines.Diffusers(args.model, args.dtype)
    prompts = held_out.prompts(args.count)
    if args.training_style:
        for prompt in prompts:
            prompt.text = plain_sentence(prompt.scene)
    scores, clips, times = [], [], []
    for prompt, frames, result, given, seconds in run(
            engine, prompts, args.task, num_inference_steps=args.steps,
            guidance_scale=args.guidance):
        scores.append(result)
        times.append(seconds)
        shown = [] if given is None else list(given.frames[::max(1, len(given.frames) - 1)])
        clips.append(shown + [frames[i] for i in SHEET_FRAMES])
        if not args.quiet:
            wrong = [n for n in score.ASPECTS if not getattr(result, n)]
            print(f"{prompt.text} | {'wrong: ' + ', '.join(wrong) if wrong else 'right'} "
                  f"| saw {result.seen.color} {result.seen.shape} {result.seen.motion} "
                  f"on {result.seen.background}", flush=True)
    if args.sheet:
        sheet(clips[:24], args.sheet)
    numbers = "  ".join(f"{k} {v:.3f}" for k, v in score.totals(scores).items())
    print(f"{args.engine} {args.task} {len(scores)} prompts: {numbers}  "
          f"median {np.median(times):.2f} s a clip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
