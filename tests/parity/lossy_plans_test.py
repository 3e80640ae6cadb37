"""Casting and quantization through kino-render against the libraries they come from, on the oracle's checkpoints.

Weights decode to the same bits there and here (tests/engine/quant), so frames agree as without them. Where activations are
quantized too, a value on the edge between two levels may fall to either side; what that does is measured on the library
itself.
"""
import glob
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from safetensors import safe_open

import compare
import kino_render
import lossy_oracle
import matrix
from lossy_run import ALLOWED_LOSS_DB, FLOAT8, FRAMES, ROUNDING, Run, check_frames, skip_flags



CASTS = [
    ("transformer", "t2v-0"), ("transformer", "i2v-1"), ("transformer", "t2v-8"),
    ("text_encoder", "t2v-0"), ("text_encoder", "t2v-8"),
    ("vae", "t2v-0"), ("vae", "i2v-1"), ("vae", "i2v-2"), ("latent_upsampler", "upsample-2"),
    ("transformer", "mochi-t2v-0"), ("vae", "mochi-t2v-0"),
    ("transformer", "allegro-t2v-0"), ("vae", "allegro-t2v-0"),
    ("transformer", "hunyuan-t2v-1"), ("text_encoder", "hunyuan-t2v-1"), ("text_encoder", "hunyuan-i2v-0"),
    ("text_encoder_2", "hunyuan-t2v-0"), ("image_encoder", "hunyuan-framepack-0"), ("vae", "hunyuan-i2v-1")]


@matrix.sliced("component,name,storage", [(*cast, storage) for storage in FLOAT8 for cast in CASTS],
               lambda component, name, storage: [(component, name), (component, storage)])
def test_cast_weights_give_diffusers_frames(component, name, storage, tmp_path, pytestconfig):
    case = Run(name)
    assert component in case.loaded_parts()
    held = lossy_oracle.cast(case.pipeline, component, FLOAT8[storage], torch.float32)
    got, weights = case.got(tmp_path, "--storage-dtype", case.asked([component], storage))
    check_frames(case, got, case.wanted(), f"{name} {component} {storage}", pytestconfig.kino_note)
    assert weights == held  # the rest is used in the mapped file


@matrix.sliced("component,name,scheme", [
    *(("transformer", "t2v-0", scheme) for scheme in lossy_oracle.WEIGHT_ONLY),
    *(("text_encoder", "i2v-1", scheme) for scheme in lossy_oracle.WEIGHT_ONLY),
    # Rows of 36 and 40: blocks that cross rows, and layers that blocks of 32 cannot hold.
    *(("transformer", "i2v-8", scheme) for scheme in ("nf4", "fp4_dq", "int8wo", "q8_0")),
    *(("text_encoder", "t2v-8", scheme) for scheme in ("nf4_dq", "q4_1")),
    *((("transformer", f"{family}-t2v-0", scheme)) for family in ("mochi", "allegro") for scheme in ("nf4", "int8wo", "q8_0")),
    *(("text_encoder", "hunyuan-t2v-1", scheme) for scheme in lossy_oracle.WEIGHT_ONLY),
    *(("text_encoder", "hunyuan-i2v-0", scheme) for scheme in ("nf4", "int8wo", "q8_0")),
    *(("transformer", "hunyuan-t2v-1", scheme) for scheme in ("nf4", "int8wo", "fp8wo")),
    *(("transformer", "hunyuan-framepack-0", scheme) for scheme in ("nf4", "int8wo")),
    ("text_encoder_2", "hunyuan-t2v-0", "nf4"), ("image_encoder", "hunyuan-framepack-0", "nf4")],
               lambda component, name, scheme: [scheme, (component, name)])
def test_quantized_weights_give_the_frames_of_the_librarys(component, name, scheme, tmp_path, pytestconfig):
    case = Run(name)
    held = lossy_oracle.quantize(case.part(component), scheme)
    got, weights = case.got(tmp_path, "--quantize", case.asked([component], scheme))
    check_frames(case, got, case.wanted(), f"{name} {component} {scheme} ({len(held)} layers)",
                 pytestconfig.kino_note)
    assert weights == sum(held.values())


def frames_of_library(name, component, scheme, skip=(), threshold=6.0, tremor=None):
    case = Run(name)
    held = lossy_oracle.quantize(case.part(component), scheme, skip, threshold)
    if tremor is not None:
        lossy_oracle.tremble(case.part(component), held, ROUNDING, tremor)
    return case.wanted(), held


def check_arithmetic(name, component, scheme, tmp_path, note, skip=(), threshold=None):
    limit = {} if threshold is None else {"threshold": threshold}
    want, held = frames_of_library(name, component, scheme, skip, **limit)
    edges = max(float(np.abs(want - frames_of_library(
        name, component, scheme, skip, tremor=seed, **limit)[0]).max()) for seed in range(3))
    case = Run(name)
    flags = [] if threshold is None else ["--llm-int8-threshold", str(threshold)]
    got, weights = case.got(tmp_path, "--quantize", f"{component}={scheme}", *skip_flags(skip), *flags)
    error = float(np.abs(got - want).max())
    moved = float(np.abs(got - case.lossless()).max())
    note(f"{name} {component} {scheme} ({len(held)} layers{f', threshold {threshold}' if flags else ''}): frames max abs "
         f"error {error:.2e}, the library's own with trembling inputs {edges:.2e} (lossless frames differ by {moved:.2e})")
    assert weights == sum(held.values())
    assert moved > 10 * FRAMES
    assert error <= max(FRAMES, 3 * edges)
    return got


# All layers together are rarely without a value on an edge, and then off by as much as the scheme itself; the few that
# lie before the blocks tell its arithmetic from another's.
FEW = ("transformer_blocks", "proj_")


LAYERS = {"transformer": ("transformer", "t2v-0", ()), "few-of-t2v-0": ("transformer", "t2v-0", FEW),
          "few-of-i2v-1": ("transformer", "i2v-1", FEW), "text-t2v-0": ("text_encoder", "t2v-0", ()),
          "text-i2v-8": ("text_encoder", "i2v-8", ()), "mochi": ("transformer", "mochi-t2v-0", ())}


@matrix.sliced("component,name,skip,scheme", [
    pytest.param(*layers, scheme, id=f"{where}-{scheme}") for scheme in lossy_oracle.DYNAMIC
    for where, layers in LAYERS.items()],
               lambda component, name, skip, scheme: [(component, name, skip), (component, scheme)])
def test_quantized_arithmetic_is_the_librarys(component, name, skip, scheme, tmp_path, pytestconfig):
    check_arithmetic(name, component, scheme, tmp_path, pytestconfig.kino_note, skip)


# bitsandbytes looks for a layer's outliers in all its tokens together. Kino projects each prompt's tokens on their own and
# without the padding that diffusers' batch has, so that they do not depend on another prompt; hence these are left out.
PROMPTS = ("caption_projection", "attn2.to_k", "attn2.to_v")


@pytest.mark.parametrize("component,skip", [("transformer", PROMPTS), ("text_encoder", ())],
                         ids=["transformer", "text_encoder"])
def test_outliers_stay_as_their_threshold_says(component, skip, tmp_path, pytestconfig):
    frames = [check_arithmetic("t2v-0", component, "int8", tmp_path, pytestconfig.kino_note, skip, threshold)
              for threshold in (0.0, 1.5)]
    assert np.abs(frames[0] - frames[1]).max() > FRAMES


def test_skipped_layers_are_cast_where_the_rest_is(tmp_path, pytestconfig):
    """Two quantizers, layers that neither may touch, and casting of what they leave."""
    case = Run("t2v-0")
    transformer = lossy_oracle.quantize(case.part("transformer"), "nf4", ("attn1",))
    held = sum(transformer.values())
    held += lossy_oracle.cast(case.pipeline, "transformer", torch.float8_e4m3fn, torch.float32, transformer)
    text = lossy_oracle.quantize(case.part("text_encoder"), "q8_0")
    held += sum(text.values())
    held += lossy_oracle.cast(case.pipeline, "text_encoder", torch.float8_e5m2, torch.float32, text)
    got, weights = case.got(
        tmp_path, "--quantize", "nf4,text_encoder=q8_0", "--quantize-skip", "attn1",
        "--storage-dtype", "transformer=float8_e4m3fn,text_encoder=float8_e5m2")
    check_frames(case, got, case.wanted(), "nf4 and q8_0 with casting", pytestconfig.kino_note)
    assert weights == held


def file_bytes(model, component):
    """Of every tensor, by name."""
    sizes = {}
    for path in glob.glob(os.path.join(model, component, "*.safetensors")):
        with safe_open(path, "pt") as file:
            sizes.update((name, file.get_tensor(name).nbytes) for name in file.keys())
    assert sizes
    return sizes


def test_a_value_for_the_whole_model_leaves_the_vae_alone(tmp_path, pytestconfig):
    case = Run("i2v-1")
    expected = 0
    for component in ("transformer", "text_encoder"):
        held = lossy_oracle.quantize(case.part(component), "q5_1")
        expected += sum(held.values()) + sum(
            size for name, size in file_bytes(case.fixture.model, component).items()
            if name.removesuffix(".weight") not in held)
    expected += sum(file_bytes(case.fixture.model, "vae").values())
    got, weights = case.got(tmp_path, "--quantize", "q5_1", "--weights-home", "pageable")
    check_frames(case, got, case.wanted(), "i2v-1 whole model q5_1", pytestconfig.kino_note)
    assert weights == expected  # all of the model is in host memory


class Serialized(Run):
    """A case whose transformer and text encoder save_pretrained wrote with a BitsAndBytesConfig."""

    def __init__(self, name, folder, **options):
        super().__init__(name)
        self.model = str(folder / "model")
        shutil.copytree(self.fixture.model, self.model)
        for component in ("transformer", "text_encoder"):
            path = os.path.join(self.model, component)
            loaded = lossy_oracle.load_quantized(type(self.part(component)), path, **options)
            shutil.rmtree(path)
            loaded.save_pretrained(path)
            lossy_oracle.decode_serialized(loaded)
            setattr(self.pipeline, component, loaded)


FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}


@pytest.mark.parametrize("name,options", [
    ("t2v-0", {**FOUR_BIT, "bnb_4bit_quant_type": "nf4"}),
    ("i2v-8", {**FOUR_BIT, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    ("i2v-1", {**FOUR_BIT, "bnb_4bit_quant_type": "fp4"}),
    ("t2v-8", {"load_in_8bit": True, "llm_int8_threshold": 3.0})], ids=["nf4", "nf4_dq", "fp4", "int8"])
def test_what_bitsandbytes_saved_is_read_as_it_is(name, options, tmp_path, pytestconfig):
    case = Serialized(name, tmp_path, **options)
    got, weights = case.got(tmp_path, model=case.model)
    what = f"{name} saved by bitsandbytes"
    if "load_in_8bit" in options:
        want = case.wanted()
        layers = {component: [layer for layer, module in case.part(component).named_modules()
                              if type(module).__name__ == "Linear8bitLt"]
                  for component in ("transformer", "text_encoder")}
        for component, names in layers.items():
            lossy_oracle.tremble(case.part(component), names, ROUNDING, 1)
        edges = float(np.abs(want - case.wanted()).max())
        error = float(np.abs(got - want).max())
        pytestconfig.kino_note(f"{what} as int8: frames max abs error {error:.2e}, with trembling inputs {edges:.2e}")
        assert error <= max(FRAMES, 3 * edges)
    else:
        check_frames(case, got, case.wanted(), what, pytestconfig.kino_note)
    assert weights == 0  # used where the file is mapped
    offloaded, weights = case.got(tmp_path, "--offload", "leaf", model=case.model)
    assert np.array_equal(offloaded, got) and weights > 0


BFLOAT16 = [("nf4", None), ("q8_0", None), ("int8wo", None), ("fp8wo", None), (None, "float8_e4m3fn"),
            (None, "float8_e5m2")]


# One clip's PSNR is a draw: with sums in another order it moves by up to 1.6 dB either way, and by nothing in the mean
# (measured on nine clips of int8wo). So the bar is for the mean of several.
BFLOAT16_CASES = ("t2v-0", "t2v-2", "t2v-8")


@pytest.mark.parametrize("scheme,storage", BFLOAT16, ids=[a or b for a, b in BFLOAT16])
def test_in_bfloat16_kino_is_as_close_as_the_library(scheme, storage, tmp_path, pytestconfig):
    differences = []
    for name in BFLOAT16_CASES:
        frames = {}
        for dtype in (torch.float32, torch.bfloat16):
            case = Run(name, torch.bfloat16)
            if dtype == torch.float32:  # the truth: what the stored weights mean, computed without rounding
                for component in ("transformer", "text_encoder", "vae"):
                    case.part(component).to(dtype)
            for component in ("transformer", "text_encoder"):
                if scheme:
                    lossy_oracle.quantize(case.part(component), scheme)
                else:
                    lossy_oracle.cast(case.pipeline, component, FLOAT8[storage], dtype)
            frames[dtype] = case.wanted()
        flags = ["--quantize", scheme] if scheme else ["--storage-dtype", storage]
        got, _ = case.got(tmp_path, *flags, dtype="bfloat16")
        ours = compare.psnr(frames[torch.float32], got)
        theirs = compare.psnr(frames[torch.float32], frames[torch.bfloat16])
        pytestconfig.kino_note(f"{name} {scheme or storage}: bfloat16 PSNR {ours:.1f} dB, the library's {theirs:.1f} dB")
        differences.append(ours - theirs)
    assert np.mean(differences) >= -ALLOWED_LOSS_DB, differences


def planned_weights(model, request, *flags):
    """The most of any stage, as `kino-render plan` has it."""
    done = subprocess.run([kino_render.binary(), "plan", "--model", model, "--request", request, "--dtype", "float32",
                           "--json", *flags], env=kino_render.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chosen = next(plan for plan in json.loads(done.stdout)["plans"] if plan.get("chosen"))
    return max(int(stage.get("weights_bytes", 0)) for stage in chosen["stages"])


LOSSY = {
    "nf4": ["--quantize", "nf4"],
    "int8": ["--quantize", "int8"],
    "fp8dyn": ["--quantize", "fp8dyn"],
    "q4_1": ["--quantize", "q4_1"],
    "cast": ["--storage-dtype", "float8_e4m3fn,vae=float8_e5m2"],
    "mixed": ["--quantize", "transformer=int8dyn,text_encoder=nf4_dq", "--quantize-skip", "attn2",
              "--storage-dtype", "float8_e4m3fn"],
}


PLACES = [("none", "pageable"), ("model", "file"), ("model", "pageable"), ("sequential", "file"),
          ("leaf", "file"), ("leaf", "pageable"), ("block:1", "file"), ("block:2", "pageable")]


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    """resident(lossy): t2v-2, and its frames with weights that stay where they are."""
    frames = {}

    def of(lossy):
        if lossy not in frames:
            case = Run("t2v-2")
            got, _ = case.got(tmp_path_factory.mktemp("resident"), *LOSSY[lossy], "--offload", "none")
            assert np.abs(got - case.lossless()).max() > 10 * FRAMES
            frames[lossy] = case, got
        return frames[lossy]

    return of


@matrix.sliced("lossy,policy,home", [(lossy, *place) for lossy in LOSSY for place in PLACES],
               lambda lossy, policy, home: [lossy, (policy, home)])
def test_where_lossy_weights_are_does_not_change_a_bit(lossy, policy, home, resident, tmp_path):
    case, want = resident(lossy)
    got, weights = case.got(tmp_path, *LOSSY[lossy], "--offload", policy, "--weights-home", home)
    assert np.array_equal(got, want), f"off by up to {np.abs(got - want).max()}"
    # In a plan for the CPU weights are also what its home takes; here they are what is computed with.
    assert weights == planned_weights(case.fixture.model, case.fixture.request("untiled"), *LOSSY[lossy], "--offload",
                                      policy, "--weights-home", home if policy == "none" else "file")


@pytest.mark.parametrize("flags,message", [
    (["--quantize", "nf3"], "nf3.*nf4.*q5_1"),
    (["--quantize", "transfomer=nf4"], "transfomer.*transformer"),
    (["--quantize", "text_encoder="], "quantize"),
    (["--storage-dtype", "float8"], "float8_e4m3fn"),
    (["--storage-dtype", "tokenizer=float8_e5m2"], "tokenizer.*transformer"),
    (["--quantize", "int8", "--llm-int8-threshold", "-1"], "threshold")])
def test_what_is_not_there_is_refused_by_name(flags, message, tmp_path):
    with pytest.raises(RuntimeError, match=f"(?s)exit status [23]\n.*{message}"):
        Run("t2v-0").got(tmp_path, *flags)
