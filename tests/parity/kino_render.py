"""Calls kino-render as a user would."""
import dataclasses
import json
import os
import subprocess
import tempfile

import numpy as np


# Of the instruction set, for scripts/check cpu. They are Kino's alone: under ONEDNN_MAX_CPU_ISA=AVX2 torch's int8 product
# saturates on a CPU that has VNNI, so the oracle must not have them.
_CPU_LIMITS = {}


def keep_cpu_limits():
    """Takes the limits out of this process's environment, before torch reads them."""
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        if name in os.environ:
            _CPU_LIMITS[name] = os.environ.pop(name)


def environment():
    """For a program of Kino's."""
    return {**os.environ, **_CPU_LIMITS}


@dataclasses.dataclass
class Request:
    """`request`: the path of a JSON file, or a dict without file conditions. taps: a folder, stats: a file; None: none."""
    request: str | dict
    taps: str | None = None
    stats: str | None = None


def binary():
    return os.path.join(os.environ["KINO_BIN_DIR"], "kino-render")


def render_all(model, requests, dtype="float32", variant=None, threads=1, timeout=300, flags=()):
    """The frames of each Request, float32 [T, H, W, 3] in 0..1, from one process with one loaded model.

    A prompt that an earlier request had under the same plan of the text encoder is not encoded again. Raises where any
    request fails; the message holds what kino-render says of each.
    """
    requests = list(requests)
    for name in ("taps", "stats"):
        if len({getattr(each, name) is None for each in requests}) > 1:
            raise ValueError(f"{name} of some requests only")
    with tempfile.TemporaryDirectory() as folder:
        command = [binary(), "--model", model, "--device", "cpu", "--dtype", dtype, "--threads", str(threads), *flags]
        if variant:
            command += ["--variant", variant]
        outs = []
        for index, each in enumerate(requests):
            path = each.request
            if isinstance(path, dict):
                path = os.path.join(folder, f"request_{index}.json")
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(each.request, file)
            outs.append(os.path.join(folder, f"frames_{index}.npy"))
            command += ["--request", path, "--out", outs[-1]]
            if each.taps:
                command += ["--taps", each.taps]
            if each.stats:
                command += ["--stats", each.stats]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout * len(requests),
                              env={**environment(), "OMP_NUM_THREADS": str(threads)})
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        frames = [np.load(out) for out in outs]
    for each in frames:
        if each.dtype != np.float32:
            raise RuntimeError(f"kino-render wrote {each.dtype}, expected float32")
    return frames


def render(model, request, taps=None, stats=None, **options):
    """The frames of one request; see render_all."""
    return render_all(model, [Request(request, taps, stats)], **options)[0]
