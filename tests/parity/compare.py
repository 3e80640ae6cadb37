"""Holds Kino's values of a run against diffusers', stage by stage, in the order in which they come about."""
import json
import os
import re

import numpy as np

# Largest absolute error a stage may have in float32 on the CPU. Text states and latents are of unit size, so one number
# serves all; it is the promise made for frames. Where a sampler starts from larger noise, it is of that noise's size. (Sums run in another order in batched, split or blocked matmuls and
# convolutions: 1e-6 to 1e-5 is usual.)
TOLERANCE = {"text_states": 1e-4, "pooled_states": 1e-4, "image_states": 1e-4, "denoise": 1e-4, "video_latents": 1e-4,
             "upsampled": 1e-4, "latents": 1e-4, "frames": 1e-4}


def stages(folder):
    """The .npy taps in `folder`, in order: text states, each step, latents. Where latents are upsampled, what goes in and
    what comes out stands between the steps of the small ones and those of the large ones. Where sections are decoded, no
    step sees what comes of that."""
    names = {name[:-4] for name in os.listdir(folder) if name.endswith(".npy")}
    steps, sections = (sorted(name for name in names if re.fullmatch(rf"{kind}_\d+", name)) for kind in ("denoise", "latents"))
    sizes = [np.load(os.path.join(folder, step + ".npy"), mmap_mode="r").size for step in steps]
    large = sum(size > sizes[0] for size in sizes)
    small = len(steps) - large
    order = ["text_states", "pooled_states", "image_states", *steps[:small], "video_latents", "upsampled", *steps[small:],
             "latents", *sections]
    assert names <= set(order), f"{folder}: taps without a place: {names - set(order)}"
    return [name for name in order if name in names]


class Comparison:
    """The errors of one run. `first` names the first stage outside its tolerance; None: all agree."""

    def __init__(self):
        self.rows = []
        self.first = None

    def _add(self, stage, agrees, text):
        self.rows.append(f"  {'' if agrees else 'DIVERGES':9}{stage:14}{text}")
        if not agrees and self.first is None:
            self.first = stage

    def tokens(self, want, got):
        at = "equal"
        if want != got:
            at = f"expected {want}\n{'':25}got      {got}"
        self._add("tokens", want == got, at)

    def values(self, stage, want, got):
        """Returns the largest absolute error."""
        if want.shape != got.shape:
            self._add(stage, False, f"shape {got.shape}, expected {want.shape}")
            return float("inf")
        difference = np.abs(want.astype(np.float64) - got.astype(np.float64))
        worst = float(difference.max()) if difference.size else 0.0
        if not np.isfinite(got).all():
            worst = float("inf")
        a, b = want.ravel().astype(np.float64), got.ravel().astype(np.float64)
        norm = np.linalg.norm(a) * np.linalg.norm(b)
        where = np.unravel_index(int(np.argmax(difference)), want.shape) if worst else ()
        tolerance = TOLERANCE[re.sub(r"_\d+$", "", stage)] * max(1.0, float(want.std()))
        self._add(stage, worst <= tolerance,
                  f"max abs {worst:.2e} (allowed {tolerance:.0e}) at {tuple(map(int, where))} "
                  f"cosine {a @ b / norm if norm else 1.0:.9f}")
        return worst

    def __str__(self):
        head = f"first diverges at: {self.first}" if self.first else "all stages agree"
        return "\n".join([head, *self.rows])


def compare_run(want_taps, got_taps, want_frames, got_frames):
    """Returns the Comparison and the frames' largest absolute error."""
    result = Comparison()
    if os.path.exists(os.path.join(want_taps, "tokens.json")):  # where there is text
        with open(os.path.join(want_taps, "tokens.json"), encoding="utf-8") as file:
            want = json.load(file)["input_ids"]
        with open(os.path.join(got_taps, "tokens.json"), encoding="utf-8") as file:
            got = json.load(file)["input_ids"]
        result.tokens(want, got)
    for stage in stages(want_taps):
        path = os.path.join(got_taps, stage + ".npy")
        if not os.path.exists(path):
            result._add(stage, False, f"kino-render wrote no {stage}.npy")
            continue
        result.values(stage, np.load(os.path.join(want_taps, stage + ".npy")), np.load(path))
    return result, result.values("frames", want_frames, got_frames)


def psnr(want, got):
    error = np.mean((want.astype(np.float64) - got.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else -10 * np.log10(error)
