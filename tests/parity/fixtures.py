"""Cases and their expected values, made once per build tree and kept there as long as the oracle does not change."""
import dataclasses
import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile

import numpy as np
import torch
from safetensors import safe_open

import kino_request
from oracle.build import Changes, build
from oracle.families import family
from oracle.run import apply_vae_options, load_pipeline
from oracle.taps import run_with_taps

SEED = 1234
# What each family can do: every test over families and tasks goes through these, so a new task is one word here.
TASKS = {"ltx": ("t2v", "i2v", "v2v", "condition", "two_pass", "long", "upsample"), "mochi": ("t2v",), "allegro": ("t2v",),
         "cogvideox": ("t2v", "i2v", "v2v", "control"), "hunyuan": ("t2v", "i2v", "framepack")}
# Of each family's variants, see Case.generation.
GENERATIONS = {"ltx": 3, "mochi": 2, "allegro": 2, "cogvideox": 4, "hunyuan": 3}


@dataclasses.dataclass(frozen=True)
class Case:
    """One tiny checkpoint and a request; each tiling of `tilings` is one run of it."""
    name: str
    task: str
    variant: int
    changes: Changes = dataclasses.field(default_factory=Changes)
    tilings: dict = dataclasses.field(default_factory=lambda: {"untiled": None})
    seed: int = SEED
    family: str = "ltx"

    @property
    def generation(self):
        """Of LTX-Video, its VAE's: 0, 1 and 2 are 0.9.0, 0.9.1 and 0.9.5. Of Mochi, what an empty prompt is: encoded as
        any other, or 1, none at all. Of Allegro, 1 where its VAE has two tiles in time. Of CogVideoX, 0 is 2b, 1 is 5b, 2 and
        3 are 1.5. Of HunyuanVideo, see oracle/families/hunyuan.py."""
        return self.variant % GENERATIONS[self.family]


class Fixture:
    """A folder with the case's model, one Kino request per tiling and what diffusers makes of each in float32."""

    def __init__(self, case, folder):
        self.case = case
        self.folder = folder
        self.model = os.path.join(folder, "model")

    def request(self, tiling):
        return os.path.join(self.folder, f"kino_request_{tiling}.json")

    def taps(self, tiling):
        return os.path.join(self.folder, f"taps_{tiling}")

    def frames(self, tiling):
        return np.load(os.path.join(self.folder, f"expected_{tiling}.npy"))

    def converted_bytes(self):
        """Of weights that the files have in another type than float32 (tables that diffusers computes in float64), as float32:
        what Kino holds of a model whose other weights it uses where their file is mapped."""
        converted = 0
        for path in glob.glob(os.path.join(self.model, "*", "*.safetensors")):
            with safe_open(path, "pt") as file:
                tensors = [file.get_tensor(name) for name in file.keys()]
            converted += sum(4 * tensor.numel() for tensor in tensors if tensor.dtype != torch.float32)
        return converted

    def diffusers_frames(self, dtype):
        """The untiled run in another type, with the same float32 weights converted while loading."""
        with open(os.path.join(self.folder, "request.json"), encoding="utf-8") as file:
            request = json.load(file)
        pipeline = load_pipeline(self.folder, request, dtype, self.case.changes.weights_variant)
        with tempfile.TemporaryDirectory() as taps:
            return run_with_taps(pipeline, request, self.folder, taps)


def matrix(name="ltx"):
    """Variants 0-11 of each task of the family, untiled and, where tiles are an option, tiled."""
    tilings = {"untiled": None}
    if family(name).small_tiles() is not None:
        tilings["tiled"] = family(name).small_tiles()
    prefix = "" if name == "ltx" else f"{name}-"
    return [Case(f"{prefix}{task}-{variant}", task, variant, tilings=tilings, family=name)
            for task in TASKS[name] for variant in range(12)]


def every_case():
    """The matrices of all families."""
    return [case for name in TASKS for case in matrix(name)]


def every_generation():
    """Of the matrices of all families, one case of each family, task and generation."""
    return [case for case in every_case() if case.variant < GENERATIONS[case.family]]


def make(case):
    """The case's fixture, from the store in the build tree if it is there."""
    # Named by all of the case, so that an edit of a test leaves the other cases' values.
    folder = os.path.join(_store(), f"{case.name}-{hashlib.sha256(repr(case).encode()).hexdigest()[:8]}")
    if not os.path.isdir(folder):
        with tempfile.TemporaryDirectory(dir=_store()) as scratch:
            _fill(case, os.path.join(scratch, case.name))
            try:
                os.rename(os.path.join(scratch, case.name), folder)
            except OSError:  # another test process was faster
                if not os.path.isdir(folder):
                    raise
    return Fixture(case, folder)


def _fill(case, folder):
    request = build(case.family, case.task, case.variant, case.seed, folder, changes=case.changes)
    kino_request.write_video(folder, request)
    pipeline = load_pipeline(folder, request, torch.float32, case.changes.weights_variant)
    state = dict(vars(pipeline.vae))  # tiling is a part of it
    for tiling, options in case.tilings.items():
        run = dict(request)
        vars(pipeline.vae).update(state)
        if options is not None:
            run["vae_tiling"] = options
            apply_vae_options(pipeline, run)
        taps = os.path.join(folder, f"taps_{tiling}")
        frames = run_with_taps(pipeline, run, folder, taps)
        if not np.isfinite(frames).all() or frames.std() <= 0.02:
            raise ValueError(f"{case.name}: degenerate frames, standard deviation {frames.std()}")
        np.save(os.path.join(folder, f"expected_{tiling}.npy"), frames)
        with open(os.path.join(folder, f"kino_request_{tiling}.json"), "w",
                  encoding="utf-8") as file:
            json.dump(kino_request.convert(run), file, indent=1)


def _store():
    """A folder of the build tree named by everything that the expected values depend on but the case."""
    here = os.path.dirname(os.path.abspath(__file__))
    digest = hashlib.sha256()
    sources = glob.glob(os.path.join(here, "oracle", "**", "*.py"), recursive=True)
    for path in sorted([*sources, os.path.join(here, "kino_request.py"), __file__]):
        with open(path, "rb") as file:
            digest.update(file.read())
    for name in ("torch", "diffusers", "transformers", "tokenizers", "numpy", "beautifulsoup4", "ftfy"):
        digest.update(importlib.metadata.version(name).encode())
    root = os.path.join(os.path.dirname(os.environ["KINO_BIN_DIR"]), "parity_fixtures")
    store = os.path.join(root, digest.hexdigest()[:16])
    if not os.path.isdir(store):
        os.makedirs(store, exist_ok=True)
        for name in os.listdir(root):  # values of an older oracle
            if os.path.join(root, name) != store:
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)
    return store
