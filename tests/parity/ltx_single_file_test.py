"""A transformer in one original file, safetensors or GGUF, beside a folder for the rest."""
import json
import os
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import compare
import kino_render
import ltx_fixtures
import matrix
from oracle.run import load_pipeline, run
from oracle.weights import randomize

PREFIX = "model.diffusion_model."
# One of each VAE generation.
CASES = [case for case in ltx_fixtures.matrix() if case.task == "t2v" and case.variant < 3]
WEIGHTS = "diffusion_pytorch_model.safetensors"
# Each with the types that the quantizing converters mix into files of its name.
MIXES = {
    "F16": ["F16"],
    "BF16": ["BF16"],
    "Q8_0": ["Q8_0"],
    "Q4_0": ["Q4_0", "Q4_1"],
    "Q5_0": ["Q5_0", "Q5_1"],
    "K": ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"],
    "IQ4": ["IQ4_NL", "IQ4_XS"],
}
# diffusers decodes in float16: the scale of a run, its product and the sum are each rounded to 11
# bits, which moves a weight by up to 3 * 2^-12 of its block's largest, and frames in 0..1, after a
# few steps with guidance, by about ten times that. Measured: 2.5e-3 at most.
DIFFUSERS_TOLERANCE = 5e-3


def original_name(name):
    for ours, theirs in [("proj_in", "patchify_proj"), ("time_embed", "adaln_single"),
                         ("norm_q", "q_norm"), ("norm_k", "k_norm")]:
        name = name.replace(ours, theirs)
    return name


def write_original(model, path, prefix):
    """The folder's transformer under the original names; with a prefix, also a VAE as it would lie beside it."""
    tensors = {prefix + original_name(name): tensor
               for name, tensor in load_file(os.path.join(model, "transformer", WEIGHTS)).items()}
    if prefix:
        tensors["vae.per_channel_statistics.mean-of-means"] = torch.zeros(8)
        tensors["vae.decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"] = torch.zeros(2, 2)
    save_file(tensors, path)


@matrix.sliced("case,prefix", [pytest.param(case, prefix, id=f"{case.name}-{name}") for case in CASES
                               for name, prefix in (("prefixed", PREFIX), ("bare", ""))],
               lambda case, prefix: [("case", case.name), ("prefix", prefix)])
def test_a_single_file_gives_the_folders_frames(case, prefix, tmp_path):
    fixture = ltx_fixtures.make(case)
    path = str(tmp_path / "ltx.safetensors")
    write_original(fixture.model, path, prefix)
    request = fixture.request("untiled")
    want = kino_render.render(fixture.model, request)
    # The folder's own weights are gone, so that only the file's can be used.
    model = str(tmp_path / "model")
    shutil.copytree(fixture.model, model)
    os.remove(os.path.join(model, "transformer", WEIGHTS))
    got = kino_render.render(model, request, flags=["--model", path])
    assert np.array_equal(want, got)


class Wide:
    """A case's folder with a transformer whose rows every block type divides, and what diffusers makes of it."""

    def __init__(self, folder):
        from diffusers import LTXVideoTransformer3DModel
        self.case = ltx_fixtures.matrix()[0]
        self.fixture = ltx_fixtures.make(self.case)
        self.folder = str(folder)
        self.model = os.path.join(self.folder, "model")
        shutil.copytree(self.fixture.model, self.model)
        self.transformer = os.path.join(self.model, "transformer")
        with open(os.path.join(self.transformer, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config.update(num_attention_heads=4, attention_head_dim=64, cross_attention_dim=256,
                      num_layers=2)
        shutil.rmtree(self.transformer)
        model = LTXVideoTransformer3DModel.from_config(config)
        randomize(model, 77)
        # Small steps: frames must not be clipped.
        with torch.no_grad():
            model.proj_out.weight.mul_(0.5)
        model.save_pretrained(self.transformer)
        with open(os.path.join(self.fixture.folder, "request.json"), encoding="utf-8") as file:
            self.request = json.load(file)

    def pipeline(self):
        return load_pipeline(self.folder, self.request, torch.float32)

    def frames(self, pipeline):
        frames = np.asarray(run(pipeline, self.request, self.fixture.folder, "np")[0])
        assert np.isfinite(frames).all() and frames.std() > 0.02
        return frames


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return Wide(tmp_path_factory.mktemp("wide"))


def random_blocks(rng, values, kind):
    """Blocks of a type that gguf cannot make: any quants, scales such that weights are of the size of `values`."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (values.size // elements, size), dtype=np.uint8)
    halves = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
              "IQ4_NL": [0], "IQ4_XS": [0]}[kind.name]
    for at in halves:
        ones = np.full(len(blocks), 1, np.float16)
        blocks[:, at:at + 2] = ones.view(np.uint8).reshape(-1, 2)
    scale = np.float16(values.std() / gguf.quants.dequantize(blocks, kind).std())
    for at in halves:
        blocks[:, at:at + 2] = np.full(len(blocks), scale).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(*values.shape[:-1], -1)


def write_gguf(wide, path, kinds):
    """Returns the weights that the file stands for, by diffusers' names: what gguf decodes."""
    rng = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "ltxv")
    weights = {}
    matrices = 0
    for name, tensor in load_file(os.path.join(wide.transformer, WEIGHTS)).items():
        values = tensor.numpy()
        kind = gguf.GGMLQuantizationType.F32
        if values.ndim == 2 and not name.endswith("scale_shift_table"):
            kind = gguf.GGMLQuantizationType[kinds[matrices % len(kinds)]]
            matrices += 1
            if values.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] != 0:  # proj_in
                kind = gguf.GGMLQuantizationType.F16
        try:
            data = gguf.quants.quantize(values, kind)
        except NotImplementedError:
            data = random_blocks(rng, values, kind)
        raw = None if kind.name in ("F32", "F16") else kind
        writer.add_tensor(original_name(name), data, raw_dtype=raw)
        weights[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).copy())
    assert matrices > 20
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.parametrize("mix", MIXES)
def test_gguf_frames_are_those_of_the_decoded_weights(wide, mix, tmp_path, pytestconfig):
    from diffusers import GGUFQuantizationConfig, LTXVideoTransformer3DModel
    path = str(tmp_path / "ltx.gguf")
    weights = write_gguf(wide, path, MIXES[mix])
    got = kino_render.render(wide.model, wide.fixture.request("untiled"), flags=["--model", path])

    pipeline = wide.pipeline()
    pipeline.transformer.load_state_dict(weights)
    exact = float(np.abs(wide.frames(pipeline) - got).max())

    pipeline.transformer = LTXVideoTransformer3DModel.from_single_file(
        path, config=wide.model, subfolder="transformer", local_files_only=True,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        torch_dtype=torch.float32)
    theirs = float(np.abs(wide.frames(pipeline) - got).max())
    pytestconfig.kino_note(f"gguf {mix}: frames max abs error {exact:.2e} to gguf's weights, "
                           f"{theirs:.2e} to diffusers' float16 decoding")
    assert exact <= compare.TOLERANCE["frames"]
    assert theirs <= DIFFUSERS_TOLERANCE
