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
import fixtures
import matrix
from oracle.run import load_pipeline, run
from oracle.weights import randomize

PREFIX = "model.diffusion_model."
# One of each VAE generation, and two of Mochi.
CASES = [case for case in fixtures.matrix() if case.task == "t2v" and case.variant < 3] + fixtures.matrix("mochi")[:2]
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


def ltx_original(state):
    """The transformer's tensors under their original names."""
    def rename(name):
        for ours, theirs in [("proj_in", "patchify_proj"), ("time_embed", "adaln_single"),
                             ("norm_q", "q_norm"), ("norm_k", "k_norm")]:
            name = name.replace(ours, theirs)
        return name
    return {rename(name): tensor for name, tensor in state.items()}


_MOCHI_OUTSIDE = {
    "patch_embed.proj": "x_embedder.proj", "time_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_embed.timestep_embedder.linear_2": "t_embedder.mlp.2", "time_embed.pooler.to_kv": "t5_y_embedder.to_kv",
    "time_embed.pooler.to_q": "t5_y_embedder.to_q", "time_embed.pooler.to_out": "t5_y_embedder.to_out",
    "time_embed.caption_proj": "t5_yproj", "norm_out.linear": "final_layer.mod", "proj_out": "final_layer.linear"}
_MOCHI_INSIDE = {
    "norm1.linear": "mod_x", "norm1_context.linear": "mod_y", "norm1_context.linear_1": "mod_y",
    "attn1.norm_q": "attn.q_norm_x", "attn1.norm_k": "attn.k_norm_x", "attn1.norm_added_q": "attn.q_norm_y",
    "attn1.norm_added_k": "attn.k_norm_y", "attn1.to_out.0": "attn.proj_x", "attn1.to_add_out": "attn.proj_y",
    "ff.net.0.proj": "mlp_x.w1", "ff.net.2": "mlp_x.w2", "ff_context.net.0.proj": "mlp_y.w1",
    "ff_context.net.2": "mlp_y.w2"}
_MOCHI_FUSED = {"attn.qkv_x": ("to_q", "to_k", "to_v"), "attn.qkv_y": ("add_q_proj", "add_k_proj", "add_v_proj")}
# diffusers swaps the halves of these.
_MOCHI_SWAPPED = ("norm_out.linear", "ff.net.0.proj", "ff_context.net.0.proj")


def _swap(tensor):
    return torch.cat(tensor.chunk(2)[::-1])


def mochi_original(state):
    """The same for Genmo's names: fused projections, and the halves of some tensors the other way round."""
    original = {}
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        block, inside = "", layer
        if layer.startswith("transformer_blocks."):
            _, index, inside = layer.split(".", 2)
            block = f"blocks.{index}."
        if inside in _MOCHI_SWAPPED:
            tensor = _swap(tensor)
        if inside.removeprefix("attn1.") in sum(_MOCHI_FUSED.values(), ()):
            continue
        names = _MOCHI_INSIDE if block else _MOCHI_OUTSIDE
        original[f"{block}{names[inside]}.{leaf}" if layer else name] = tensor
    for index in range(sum(name.endswith("attn1.norm_q.weight") for name in state)):
        for fused, parts in _MOCHI_FUSED.items():
            original[f"blocks.{index}.{fused}.weight"] = torch.cat(
                [state[f"transformer_blocks.{index}.attn1.{part}.weight"] for part in parts])
    return original


def mochi_ours(original):
    """What `original` stands for under diffusers' names."""
    outside = {theirs: ours for ours, theirs in _MOCHI_OUTSIDE.items()}
    inside = {theirs: ours for ours, theirs in _MOCHI_INSIDE.items() if ours != "norm1_context.linear_1"}
    blocks = sum(name.endswith("attn.qkv_x.weight") for name in original)
    state = {}
    for name, tensor in original.items():
        layer, _, leaf = name.rpartition(".")
        if not layer:
            state[name] = tensor
            continue
        prefix, names = "", outside
        if layer.startswith("blocks."):
            _, index, layer = layer.split(".", 2)
            prefix, names = f"transformer_blocks.{index}.", inside
            if layer in _MOCHI_FUSED:
                for part, rows in zip(_MOCHI_FUSED[layer], tensor.chunk(3)):
                    state[f"{prefix}attn1.{part}.weight"] = rows.contiguous()
                continue
        ours = names[layer]
        if ours == "norm1_context.linear" and int(index) == blocks - 1:
            ours = "norm1_context.linear_1"
        state[f"{prefix}{ours}.{leaf}"] = _swap(tensor) if ours in _MOCHI_SWAPPED else tensor
    return state


def ltx_ours(original):
    from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
    return convert_ltx_transformer_checkpoint_to_diffusers(dict(original))


ORIGINAL = {"ltx": ltx_original, "mochi": mochi_original}
OURS = {"ltx": ltx_ours, "mochi": mochi_ours}


def test_mochis_names_are_those_that_diffusers_converts():
    from diffusers import MochiTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_mochi_transformer_checkpoint_to_diffusers
    torch.manual_seed(3)
    # The converter knows models of 48 blocks only.
    state = MochiTransformer3DModel(num_attention_heads=1, attention_head_dim=8, num_layers=48, pooled_projection_dim=8,
                                    text_embed_dim=16, time_embed_dim=8).state_dict()
    randomized = {name: torch.randn(tensor.shape) for name, tensor in state.items()}
    for back in (convert_mochi_transformer_checkpoint_to_diffusers(mochi_original(randomized)),
                 mochi_ours(mochi_original(randomized))):
        assert back.keys() == randomized.keys()
        assert all(torch.equal(back[name], tensor) for name, tensor in randomized.items())


def write_original(family, model, path, prefix):
    """The folder's transformer under the original names; with a prefix, also a VAE as it would lie beside it."""
    state = load_file(os.path.join(model, "transformer", WEIGHTS))
    tensors = {prefix + name: tensor.contiguous() for name, tensor in ORIGINAL[family](state).items()}
    if prefix:
        tensors["vae.per_channel_statistics.mean-of-means"] = torch.zeros(8)
        tensors["vae.decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"] = torch.zeros(2, 2)
    save_file(tensors, path)


@matrix.sliced("case,prefix", [pytest.param(case, prefix, id=f"{case.name}-{name}") for case in CASES
                               for name, prefix in (("prefixed", PREFIX), ("bare", ""))],
               lambda case, prefix: [("case", case.name), ("prefix", prefix)])
def test_a_single_file_gives_the_folders_frames(case, prefix, tmp_path):
    fixture = fixtures.make(case)
    path = str(tmp_path / "original.safetensors")
    write_original(case.family, fixture.model, path, prefix)
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

    def __init__(self, family, folder):
        import diffusers
        self.transformer_class = getattr(diffusers, {"ltx": "LTXVideoTransformer3DModel", "mochi": "MochiTransformer3DModel"}[family])
        self.case = fixtures.matrix(family)[0]
        self.fixture = fixtures.make(self.case)
        self.folder = str(folder)
        self.model = os.path.join(self.folder, "model")
        shutil.copytree(self.fixture.model, self.model)
        self.transformer = os.path.join(self.model, "transformer")
        with open(os.path.join(self.transformer, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config.update({"ltx": dict(num_attention_heads=4, attention_head_dim=64, cross_attention_dim=256, num_layers=2),
                       "mochi": dict(num_attention_heads=12, attention_head_dim=64, pooled_projection_dim=768,
                                     num_layers=2)}[family])
        shutil.rmtree(self.transformer)
        model = self.transformer_class.from_config(config)
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


@pytest.fixture(scope="module", params=["ltx", "mochi"])
def wide(request, tmp_path_factory):
    return Wide(request.param, tmp_path_factory.mktemp("wide"))


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
    writer = gguf.GGUFWriter(path, "video")
    weights = {}
    matrices = 0
    family = wide.case.family
    for name, tensor in ORIGINAL[family](load_file(os.path.join(wide.transformer, WEIGHTS))).items():
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
        writer.add_tensor(name, data, raw_dtype=raw)
        weights[name] = torch.from_numpy(gguf.quants.dequantize(data, kind).copy())
    assert matrices > 20
    weights = OURS[family](weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.parametrize("mix", MIXES)
def test_gguf_frames_are_those_of_the_decoded_weights(wide, mix, tmp_path, pytestconfig):
    from diffusers import GGUFQuantizationConfig
    path = str(tmp_path / "original.gguf")
    weights = write_gguf(wide, path, MIXES[mix])
    got = kino_render.render(wide.model, wide.fixture.request("untiled"), flags=["--model", path])

    pipeline = wide.pipeline()
    pipeline.transformer.load_state_dict(weights)
    exact = float(np.abs(wide.frames(pipeline) - got).max())

    note = f"{wide.case.family} gguf {mix}: frames max abs error {exact:.2e} to gguf's weights"
    assert exact <= compare.TOLERANCE["frames"], note
    if wide.case.family == "mochi":  # diffusers reads Mochi files of 48 blocks only
        pytestconfig.kino_note(note)
        return
    pipeline.transformer = wide.transformer_class.from_single_file(
        path, config=wide.model, subfolder="transformer", local_files_only=True,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        torch_dtype=torch.float32)
    theirs = float(np.abs(wide.frames(pipeline) - got).max())
    pytestconfig.kino_note(f"{note}, {theirs:.2e} to diffusers' float16 decoding")
    assert theirs <= DIFFUSERS_TOLERANCE
