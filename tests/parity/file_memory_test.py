"""A model that does not fit into the memory its process may have runs from its file.

RLIMIT_DATA bounds what is written to (heap, stacks, anonymous memory); a checkpoint that is mapped for reading is not.
"""
import json
import os
import resource
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import kino_render

sys.path.insert(0, os.path.join(os.environ["KINO_SOURCE_DIR"], "tests", "bench"))

import mid_size_ltx  # noqa: E402

MIB = 2 ** 20
# kino-render itself has some 120 MiB of such memory without a model, a run up to 80 MiB more. The weights are some 800 MiB
# in bfloat16.
LIMIT = 300 * MIB
VAE = dict(latent_channels=8, block_out_channels=(8, 16, 16, 16), decoder_block_out_channels=(8, 16, 16, 16),
           layers_per_block=(1, 2, 1, 1, 1), decoder_layers_per_block=(1, 1, 2, 1, 1))
REQUEST = {"task": "TEXT_TO_VIDEO", "prompt": "a paper boat", "height": 64, "width": 64, "num_frames": 9,
           "num_inference_steps": 2, "guidance_scale": 3.0, "seed": 3, "fps": 24}


class Model:
    def __init__(self, folder):
        mid_size_ltx.build(folder, VAE, layers=20, text_layers=6)
        self._folder = folder
        with open(os.path.join(folder, "request.json"), "w", encoding="utf-8") as file:
            json.dump(REQUEST, file)

    def weights(self):
        return sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(self._folder)
                   for name in names if name.endswith(".safetensors"))

    def render(self, *flags, limit=LIMIT):
        """Exit status, what it said, frames, and the most weight bytes of all stages; limit None: none."""
        out, stats = (os.path.join(self._folder, name) for name in ("frames.npy", "stats.json"))
        for path in (out, stats):
            if os.path.exists(path):
                os.remove(path)
        done = subprocess.run(
            [kino_render.binary(), "--model", os.path.join(self._folder, "model"), "--request",
             os.path.join(self._folder, "request.json"), "--out", out, "--stats", stats, "--device", "cpu", "--threads",
             "1", "--quiet", *flags], capture_output=True, text=True, timeout=120,
            env={**kino_render.environment(), "OMP_NUM_THREADS": "1"},
            preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))))
        if done.returncode != 0:
            return done.returncode, done.stderr, None, None
        with open(stats, encoding="utf-8") as file:
            stages = json.load(file)["stages"]
        return 0, done.stderr, np.load(out), max(stage["peak_weight_bytes"] for stage in stages)


@pytest.fixture(scope="module")
def model():
    with tempfile.TemporaryDirectory() as folder:
        built = Model(folder)
        assert built.weights() > 1.5 * LIMIT
        yield built


@pytest.fixture(scope="module")
def frames(model):
    status, said, frames, _ = model.render("--dtype", "bfloat16", limit=None)
    assert status == 0, said
    assert np.isfinite(frames).all() and frames.std() > 0.02
    return frames


@pytest.mark.parametrize("offload", ["none", "leaf", "block:1", "model,transformer=block:2"])
def test_weights_beyond_the_limit_are_used_from_the_file(model, frames, offload, pytestconfig):
    status, said, got, weights = model.render("--dtype", "bfloat16", "--offload", offload)
    assert status == 0, said
    assert np.array_equal(got, frames)
    assert weights < LIMIT
    assert (weights == 0) == (offload == "none")  # in the mapped file
    pytestconfig.kino_note(f"{model.weights() >> 20} MiB of weights, limit {LIMIT >> 20} MiB, {offload}: at most "
                           f"{weights / MIB:.1f} MiB of weights in memory")


@pytest.mark.parametrize("flags", [["--dtype", "float32"], ["--dtype", "bfloat16", "--quantize", "nf4"],
                                   ["--dtype", "bfloat16", "--quantize", "q8_0", "--storage-dtype", "float8_e4m3fn"]],
                         ids=["float32", "nf4", "q8_0"])
def test_what_is_converted_or_quantized_on_the_way_stays_within_the_limit(model, flags):
    want = model.render(*flags, limit=None)
    assert want[0] == 0, want[1]
    status, said, got, weights = model.render(*flags, "--offload", "leaf")
    assert status == 0, said
    assert np.array_equal(got, want[2])
    assert 0 < weights < LIMIT


@pytest.mark.parametrize("flags", [["--dtype", "bfloat16", "--weights-home", "pageable"],
                                   ["--dtype", "bfloat16", "--weights-home", "pageable", "--offload", "leaf"],
                                   ["--dtype", "float32"]], ids=["resident", "pageable-home", "converted"])
def test_copies_beyond_the_limit_fail_as_out_of_memory(model, flags):
    status, said, _, _ = model.render(*flags)
    assert status == 1, (status, said)
    assert "host memory ran out: you tried to allocate" in said
    assert len(said.splitlines()) == 1, said
