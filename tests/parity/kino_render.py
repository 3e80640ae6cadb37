"""Calls kino-render as a user would."""
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


def binary():
    return os.path.join(os.environ["KINO_BIN_DIR"], "kino-render")


def render(model, request, dtype="float32", variant=None, taps=None, stats=None,
           threads=1, timeout=300, flags=()):
    """Frames, float32 [T, H, W, 3] in 0..1. `request` is the path of a JSON file, or a dict without file conditions."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(request, dict):
            path = os.path.join(folder, "request.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(request, file)
            request = path
        out = os.path.join(folder, "frames.npy")
        command = [binary(), "--model", model, "--request", request, "--out", out,
                   "--device", "cpu", "--dtype", dtype, "--threads", str(threads)]
        command += flags
        if variant:
            command += ["--variant", variant]
        if taps:
            command += ["--taps", taps]
        if stats:
            command += ["--stats", stats]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                              env={**environment(), "OMP_NUM_THREADS": str(threads)})
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        frames = np.load(out)
    if frames.dtype != np.float32:
        raise RuntimeError(f"kino-render wrote {frames.dtype}, expected float32")
    return frames
