"""What diffusers' HunyuanVideo transformers compute: transformer_fixtures.py OUT_FOLDER SEED.

Small, with random weights, for each NAME of MODELS:
  OUT_FOLDER/NAME/                     the component as published
  OUT_FOLDER/NAME/cases.safetensors    CASE/latents, CASE/timesteps [T], CASE/text.ROW [1, L, E] without its padding,
                                       CASE/pooled.ROW, CASE/image.ROW, CASE/expected [T, B, C, F, h, w], and of bfloat16
                                       CASE/bfloat16 of the same shape
Of t2v, under the original names (diffusers' own converter gives back the folder's):
  single/tencent.safetensors, single/prefixed.safetensors, single/comfy.safetensors
Of wide, quantized under the original names, with what diffusers computes from the decoded weights:
  wide-KIND.gguf, wide-KIND.safetensors
  framepack/cast.json                  the parameters that layerwise casting stores in float8
And of the published sizes, without data (files with a hole where it would be):
  published/NAME.safetensors, published/NAME.json
"""
import copy
import inspect
import json
import math
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "bench"))

import gguf
import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel
from diffusers.loaders import single_file_utils
from diffusers.utils import logging
from safetensors.torch import save_file

from gguf_k import quantize

SMALL = dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
             num_single_layers=3, num_refiner_layers=2, text_embed_dim=24, pooled_projection_dim=12,
             rope_axes_dim=(4, 6, 6))
# Rows that blocks of 256 divide, but for a head's.
WIDE = {**SMALL, "num_attention_heads": 8, "attention_head_dim": 32, "num_layers": 1, "num_single_layers": 1,
        "num_refiner_layers": 1, "text_embed_dim": 256, "pooled_projection_dim": 256, "rope_axes_dim": (8, 12, 12)}
MODELS = {
    "t2v": SMALL,
    "odd": {**SMALL, "mlp_ratio": 2.5, "num_attention_heads": 3, "rope_theta": 100.0, "num_refiner_layers": 1,
            "out_channels": 3, "num_layers": 1, "num_single_layers": 1},
    "unguided": {**SMALL, "guidance_embeds": False},
    "token_replace": {**SMALL, "image_condition_type": "token_replace"},
    "latent_concat": {**SMALL, "in_channels": 9, "image_condition_type": "latent_concat", "guidance_embeds": False},
    "skyreels": {**SMALL, "in_channels": 8},
    "framepack": {**SMALL, "has_image_proj": True, "image_proj_dim": 20, "has_clean_x_embedder": True},
    "wide": WIDE,
}
PUBLISHED = {
    "t2v": {},
    "i2v_33ch": dict(in_channels=33, image_condition_type="latent_concat", guidance_embeds=False),
    "skyreels_i2v": dict(in_channels=32),
}
TIMESTEPS = [1000.0, 437.25]
GUIDANCE = 6.0
PADDED = 9


def randomize(model, generator):
    """No zero or one is left to hide a mistake."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.1 * noise)
    return model.eval()


class Cases:
    def __init__(self, model, generator):
        self.model, self.config, self.generator, self.out = model, model.config, generator, {}

    def randn(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def inputs(self, case, lengths, grid, timesteps, images=0):
        config, batch = self.config, len(lengths)
        latents = self.randn(batch, config.in_channels, *grid)
        text = self.randn(batch, PADDED, config.text_embed_dim)
        mask = torch.zeros(batch, PADDED, dtype=torch.long)
        pooled = self.randn(batch, config.pooled_projection_dim)
        self.out[f"{case}/latents"], self.out[f"{case}/timesteps"] = latents, torch.tensor(timesteps)
        for row, length in enumerate(lengths):
            mask[row, :length] = 1
            self.out[f"{case}/text.{row}"] = text[row:row + 1, :length].contiguous()
            self.out[f"{case}/pooled.{row}"] = pooled[row:row + 1].contiguous()
        more = {}
        if images:
            more["image_embeds"] = self.randn(batch, images, config.image_proj_dim)
            for row in range(batch):
                self.out[f"{case}/image.{row}"] = more["image_embeds"][row:row + 1].contiguous()
        return dict(hidden_states=latents, encoder_hidden_states=text, encoder_attention_mask=mask,
                    pooled_projections=pooled, **more)

    def run(self, case, inputs, dtype=torch.float32, **more):
        """As the pipelines call it: timesteps stay float32, guidance is rounded."""
        batch, steps = len(inputs["hidden_states"]), []
        cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
        guidance = torch.tensor([GUIDANCE] * batch, dtype=dtype) * 1000.0 if self.config.guidance_embeds else None
        model = copy.deepcopy(self.model).to(dtype)
        with torch.no_grad():
            for t in self.out[f"{case}/timesteps"]:
                steps.append(model(timestep=t.expand(batch), guidance=guidance, return_dict=False, **cast, **more)[0])
        key = "expected" if dtype == torch.float32 else "bfloat16"
        self.out[f"{case}/{key}"] = torch.stack(steps).float().contiguous()

    def history(self, case, grid, frames, first):
        """Frame indices that no arange would give, and sizes that the shrinking kernels do not divide."""
        more, at = {}, first
        for name, count in [("latents_history_4x", frames[0]), ("latents_history_2x", frames[1]), ("latents_clean", frames[2])]:
            if count == 0:
                continue
            indices = torch.arange(at, at + count)
            at += count + 1
            latents = self.randn(1, self.config.in_channels, count, *grid[1:])
            more[name], more[f"indices_{name}"] = latents, indices
            self.out[f"{case}/{name}"], self.out[f"{case}/{name}.indices"] = latents, indices
        indices = torch.arange(at + 2, at + 2 + grid[0])
        more["indices_latents"] = self.out[f"{case}/indices"] = indices
        return more


def make_cases(name, model, generator):
    cases = Cases(model, generator)
    grid = (3, 6, 8)
    if name == "framepack":
        grid = (3, 12, 20)
        inputs = cases.inputs("section", [6], grid, TIMESTEPS, images=5)
        more = cases.history("section", grid, (3, 3, 2), 0)
        cases.run("section", inputs, **more)
        # The same text and latents with another history.
        for key in [key for key in cases.out if key.split("/")[1].split(".")[0] in ("latents", "timesteps", "text", "pooled", "image")]:
            cases.out[key.replace("section", "next")] = cases.out[key].clone()
        cases.run("next", inputs, **cases.history("next", grid, (5, 2, 1), 7))
        return cases.out
    cases.run("one", inputs := cases.inputs("one", [5], grid, TIMESTEPS))
    if name == "wide":
        return cases.out
    cases.run("one", inputs, torch.bfloat16)
    cases.run("two", cases.inputs("two", [7, 3], grid, TIMESTEPS))
    if name == "t2v":
        cases.run("long", cases.inputs("long", [4], (5, 64, 64), [700.0]))
    if name == "token_replace":
        cases.run("still", cases.inputs("still", [4], (1, 6, 8), [700.0]))
    return cases.out


# Diffusers' names and the original ones, as far as a layer is not fused or split.
TOP = [
    ("context_embedder.time_text_embed.timestep_embedder.linear_1.", "txt_in.t_embedder.mlp.0."),
    ("context_embedder.time_text_embed.timestep_embedder.linear_2.", "txt_in.t_embedder.mlp.2."),
    ("context_embedder.time_text_embed.text_embedder.", "txt_in.c_embedder."),
    ("context_embedder.proj_in.", "txt_in.input_embedder."),
    ("context_embedder.token_refiner.refiner_blocks.", "txt_in.individual_token_refiner.blocks."),
    ("time_text_embed.timestep_embedder.linear_1.", "time_in.mlp.0."),
    ("time_text_embed.timestep_embedder.linear_2.", "time_in.mlp.2."),
    ("time_text_embed.guidance_embedder.linear_1.", "guidance_in.mlp.0."),
    ("time_text_embed.guidance_embedder.linear_2.", "guidance_in.mlp.2."),
    ("time_text_embed.text_embedder.linear_1.", "vector_in.in_layer."),
    ("time_text_embed.text_embedder.linear_2.", "vector_in.out_layer."),
    ("x_embedder.", "img_in."),
    ("norm_out.linear.", "final_layer.adaLN_modulation.1."),
    ("proj_out.", "final_layer.linear."),
]
IN_BLOCK = {
    "transformer_blocks": [
        ("norm1.linear.", "img_mod.linear."), ("norm1_context.linear.", "txt_mod.linear."),
        ("attn.norm_q.", "img_attn_q_norm."), ("attn.norm_k.", "img_attn_k_norm."), ("attn.to_out.0.", "img_attn_proj."),
        ("attn.norm_added_q.", "txt_attn_q_norm."), ("attn.norm_added_k.", "txt_attn_k_norm."),
        ("attn.to_add_out.", "txt_attn_proj."), ("ff.net.0.proj.", "img_mlp.fc1."), ("ff.net.2.", "img_mlp.fc2."),
        ("ff_context.net.0.proj.", "txt_mlp.fc1."), ("ff_context.net.2.", "txt_mlp.fc2.")],
    "single_transformer_blocks": [
        ("norm.linear.", "modulation.linear."), ("attn.norm_q.", "q_norm."), ("attn.norm_k.", "k_norm."),
        ("proj_out.", "linear2.")],
    "refiner_blocks": [
        ("norm_out.linear.", "adaLN_modulation.1."), ("attn.to_out.0.", "self_attn_proj."), ("ff.net.0.proj.", "mlp.fc1."),
        ("ff.net.2.", "mlp.fc2."), ("norm1.", "norm1."), ("norm2.", "norm2.")],
}
FUSED = {
    "transformer_blocks": [
        ("img_attn_qkv.", ["attn.to_q.", "attn.to_k.", "attn.to_v."]),
        ("txt_attn_qkv.", ["attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj."])],
    "single_transformer_blocks": [("linear1.", ["attn.to_q.", "attn.to_k.", "attn.to_v.", "proj_mlp."])],
    "refiner_blocks": [("self_attn_qkv.", ["attn.to_q.", "attn.to_k.", "attn.to_v."])],
}
BLOCKS = {"transformer_blocks": "double_blocks", "single_transformer_blocks": "single_blocks",
          "refiner_blocks": "txt_in.individual_token_refiner.blocks"}


def swap(name, tensor):
    """Tencent's last norm has its shift first."""
    return torch.cat(tensor.chunk(2)[::-1]) if name.startswith("final_layer.adaLN") else tensor


def original_state(state):
    out = {}
    for name, tensor in state.items():
        parts = name.replace("context_embedder.token_refiner.", "").split(".")
        if parts[0] not in BLOCKS:
            ours, theirs = next(pair for pair in TOP if name.startswith(pair[0]))
            original = name.replace(ours, theirs, 1)
            out[original] = swap(original, tensor)
            continue
        block = f"{BLOCKS[parts[0]]}.{parts[1]}."
        rest = ".".join(parts[2:])
        fused = next((pair for pair in FUSED[parts[0]] if any(rest.startswith(part) for part in pair[1])), None)
        if fused is None:
            ours, theirs = next(pair for pair in IN_BLOCK[parts[0]] if rest.startswith(pair[0]))
            out[block + rest.replace(ours, theirs, 1)] = tensor
        elif rest.startswith(fused[1][0]):
            prefix = name[:-len(rest)]
            leaf = rest[len(fused[1][0]):]
            out[block + fused[0] + leaf] = torch.cat([state[prefix + part + leaf] for part in fused[1]])
    return out


def check_original(original, state, width):
    """diffusers' converter knows one width only."""
    source = inspect.getsource(single_file_utils.convert_hunyuan_video_transformer_to_diffusers)
    scope = dict(vars(single_file_utils))
    exec(source.replace("hidden_size = 3072", f"hidden_size = {width}"), scope)
    back = scope["convert_hunyuan_video_transformer_to_diffusers"](dict(original))
    assert set(back) == set(state), set(back) ^ set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def comfy_name(name):
    """As ComfyUI keeps and saves the model."""
    for theirs, comfy in [
            ("txt_in.t_embedder.mlp.0.", "txt_in.t_embedder.in_layer."), ("txt_in.t_embedder.mlp.2.", "txt_in.t_embedder.out_layer."),
            ("txt_in.c_embedder.linear_1.", "txt_in.c_embedder.in_layer."), ("txt_in.c_embedder.linear_2.", "txt_in.c_embedder.out_layer."),
            ("_mod.linear.", "_mod.lin."), ("_attn_qkv.", "_attn.qkv."), ("mlp.fc1.", "mlp.0."), ("mlp.fc2.", "mlp.2."),
            ("_attn_q_norm.weight", "_attn.norm.query_norm.scale"), ("_attn_k_norm.weight", "_attn.norm.key_norm.scale"),
            (".q_norm.weight", ".norm.query_norm.scale"), (".k_norm.weight", ".norm.key_norm.scale"),
            ("_attn_proj.", "_attn.proj."), (".modulation.linear.", ".modulation.lin."), ("_in.mlp.2.", "_in.out_layer."),
            ("_in.mlp.0.", "_in.in_layer.")]:
        name = name.replace(theirs, comfy)
    return name


def write_single_files(folder, state, width):
    folder.mkdir()
    original = original_state(state)
    check_original(original, state, width)
    save_file({name: tensor.contiguous() for name, tensor in original.items()}, folder / "tencent.safetensors")
    prefixed = {"model.diffusion_model." + name: tensor.contiguous() for name, tensor in original.items()}
    prefixed["vae.decoder.conv_in.weight"] = torch.zeros(1)  # another component's
    save_file(prefixed, folder / "prefixed.safetensors")
    save_file({"model.model." + comfy_name(name): tensor.contiguous() for name, tensor in original.items()},
              folder / "comfy.safetensors")


def write_gguf(folder, kind, model, generator):
    """Matrices of `kind`, the rest as city96's converter leaves it. The model is left with the decoded weights."""
    number = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(folder / f"wide-{kind}.gguf"), "hyvid")
    state = {}
    for name, tensor in original_state(model.state_dict()).items():
        values = tensor.numpy()
        if values.ndim == 2 and values.shape[1] % gguf.GGML_QUANT_SIZES[number][0] == 0:
            blocks = quantize(values, number)
            writer.add_tensor(name, blocks, raw_dtype=number)
            values = gguf.quants.dequantize(blocks, number)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))
        state[name] = torch.from_numpy(np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = inspect.getsource(single_file_utils.convert_hunyuan_video_transformer_to_diffusers)
    scope = dict(vars(single_file_utils))
    exec(source.replace("hidden_size = 3072", "hidden_size = 256"), scope)
    model.load_state_dict(scope["convert_hunyuan_video_transformer_to_diffusers"](state))
    save_file(make_cases("wide", model, generator), folder / f"wide-{kind}.safetensors")


def write_published(folder):
    """BF16 files whose data is a hole."""
    folder.mkdir()
    for name, more in PUBLISHED.items():
        with init_empty_weights():
            model = HunyuanVideoTransformer3DModel(**more)
        header, end = {}, 0
        for key, tensor in original_state(model.state_dict()).items():
            begin, end = end, end + 2 * tensor.numel()
            header[key] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        with open(folder / f"{name}.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        (folder / f"{name}.json").write_text(model.to_json_string())


def cast_names(model):
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return [name for name, parameter in model.named_parameters() if parameter.dtype == torch.float8_e4m3fn]


def main(folder, seed):
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    folder, generator = pathlib.Path(folder), torch.Generator().manual_seed(seed)
    for name, sizes in MODELS.items():
        is_framepack = "has_clean_x_embedder" in sizes
        model_class = HunyuanVideoFramepackTransformer3DModel if is_framepack else HunyuanVideoTransformer3DModel
        model = randomize(model_class(**sizes), generator)
        model.save_pretrained(folder / name)
        save_file(make_cases(name, model, generator), folder / name / "cases.safetensors")
        if is_framepack:
            (folder / name / "cast.json").write_text(json.dumps({"names": cast_names(model)}))
        if name == "t2v":
            write_single_files(folder / "single", model.state_dict(), 32)
        if name == "wide":
            for kind in ("Q8_0", "Q4_K"):
                write_gguf(folder, kind, model, generator)
    write_published(folder / "published")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
