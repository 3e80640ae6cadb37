"""A case of the parity matrices that runs with a diffusers pipeline which may be changed first, and with kino-render."""
import copy
import json
import os

import numpy as np
import torch

import compare
import fixtures
import kino_render
from oracle.run import load_pipeline, run

CASES = {case.name: case for case in fixtures.every_case()}
FRAMES = compare.TOLERANCE["frames"]
FLOAT8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
# Two float32 implementations of a layer differ by less.
ROUNDING = 1e-6
# bfloat16 against bfloat16 has no common truth but float32 (see bfloat16_test.py).
ALLOWED_LOSS_DB = 1.0


_loaded = {}  # by a case's name and dtype


def _pipeline(fixture, request, dtype):
    """A pipeline of one's own: its networks are about to change."""
    key = fixture.case.name, dtype
    if key not in _loaded:
        _loaded[key] = load_pipeline(fixture.folder, request, dtype)
    return copy.deepcopy(_loaded[key])


class _AddsNothing(torch.nn.Module):
    """In place of a block's attention or feed-forward."""

    def __init__(self, is_attention):
        super().__init__()
        self._is_attention = is_attention

    def forward(self, hidden_states, **_):
        added = torch.zeros_like(hidden_states)
        return (added, None) if self._is_attention else added


def _empty(blocks):
    for block in blocks:
        for name, part in list(block.named_children()):
            if name in ("self_attn", "mlp"):
                setattr(block, name, _AddsNothing(name == "self_attn"))
            elif "norm" in name:
                setattr(block, name, torch.nn.Identity())


def _take_out_unused(pipeline):
    """Weights of HunyuanVideo's encoders that its pipelines do not look at what comes of."""
    text = pipeline.text_encoder
    if hasattr(text, "lm_head"):  # LLaVA
        text.lm_head = torch.nn.Identity()
        _empty(text.model.vision_tower.encoder.layers[-1:])  # vision_feature_layer is -2
        text.model.vision_tower.post_layernorm = torch.nn.Identity()
        text = text.model.language_model
    _empty(text.layers[-2:])
    text.norm = torch.nn.Identity()
    if "image_encoder" in pipeline.components:
        pipeline.image_encoder.head = torch.nn.Identity()


class Run:
    """A case, and its diffusers pipeline to change."""

    def __init__(self, name, dtype=torch.float32):
        self.fixture = fixtures.make(CASES[name])
        with open(os.path.join(self.fixture.folder, "request.json"), encoding="utf-8") as file:
            self._request = json.load(file)
        self.pipeline = _pipeline(self.fixture, self._request, dtype)
        if self.fixture.case.family == "hunyuan":
            _take_out_unused(self.pipeline)

    def part(self, component):
        return getattr(self.pipeline, component)

    def loaded_parts(self):
        """Names of the networks that have weights. What Kino does not load is taken out of them: where there are no pixels to
        take, the VAE's encoder."""
        case = self.fixture.case
        if set(fixtures.TASKS[case.family]) == {"t2v"} or (case.family, case.task) == ("hunyuan", "t2v"):
            self.pipeline.vae.encoder = self.pipeline.vae.quant_conv = None
        names = [name for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)]
        return [*names, "latent_upsampler"] if self.fixture.case.task == "two_pass" else names

    def asked(self, parts, value):
        """A flag that asks for `value` of these parts. LLaVA's tower is a component of its own in Kino."""
        is_llava = hasattr(self.pipeline.components.get("text_encoder"), "lm_head")
        names = [*parts, "image_encoder"] if is_llava and "text_encoder" in parts else parts
        return ",".join(f"{name}={value}" for name in names)

    def wanted(self):
        frames = np.asarray(run(self.pipeline, self._request, self.fixture.folder, "np")[0], np.float32)
        assert np.isfinite(frames).all()
        return frames

    def lossless(self):
        return self.fixture.frames("untiled")

    def got(self, tmp_path, *flags, model=None, dtype="float32"):
        """Frames, and the most weight bytes of all stages."""
        stats = tmp_path / "stats.json"
        frames = kino_render.render(model or self.fixture.model, self.fixture.request("untiled"),
                                    dtype=dtype, flags=flags, stats=str(stats))
        stages = json.loads(stats.read_text())["stages"]
        return frames, max(stage["peak_weight_bytes"] for stage in stages)


def skip_flags(skip):
    return [flag for name in skip for flag in ("--quantize-skip", name)]


def check_frames(run_, got, want, what, note):
    error = float(np.abs(got - want).max())
    moved = float(np.abs(want - run_.lossless()).max())
    note(f"{what}: frames max abs error {error:.2e} (lossless frames differ by {moved:.2e})")
    assert moved > 10 * FRAMES, f"{what}: no case to tell lossy from lossless"
    assert error <= FRAMES, what
