"""LTX-Video components under diffusers' names and, in single files, under the original ones.

usage: weight_map_fixtures.py FOLDER SEED

For each VAE generation G in 0.9.0, 0.9.1, 0.9.5, of the published layout with few channels:
  G/transformer          the component's folder
  G.safetensors          it and the VAE in one file under the original names, as Lightricks publishes them
  G-bare.safetensors     the transformer alone, without the "model.diffusion_model." prefix
  G.gguf                 the transformer alone in gguf's own writer, of mixed types, and
  G-gguf.safetensors     its bytes under diffusers' names
And of the published sizes, without data (files with a hole where it would be):
  published/NAME.safetensors, published/NAME.json   the file, and the config it stands for

Every original name is checked against diffusers' own converters, which must give back the name that
it was made from.
"""

import json
import pathlib
import sys
from types import SimpleNamespace

import gguf
import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.loaders.single_file_utils import (
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_ltx_vae_checkpoint_to_diffusers,
)
from safetensors.torch import save_file

PREFIX = "model.diffusion_model."

# Layouts of the published VAEs: scripts/convert_ltx_to_diffusers.py of diffusers.
LAYOUT = {
    "0.9.0": dict(
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
    ),
    "0.9.1": dict(
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(True, True, True, False),
        upsample_residual=(True,) * 3,
        upsample_factor=(2,) * 3,
        timestep_conditioning=True,
    ),
    "0.9.5": dict(
        down_block_types=("LTXVideo095DownBlock3D",) * 4,
        spatio_temporal_scaling=(True,) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4,
        upsample_residual=(True,) * 3,
        upsample_factor=(2,) * 3,
        timestep_conditioning=True,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    ),
}
SMALL = {
    "0.9.0": dict(
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=(2, 1, 1, 1, 2),
        decoder_block_out_channels=(8, 16, 32, 32),
        decoder_layers_per_block=(1, 2, 1, 1, 2),
    ),
    "0.9.1": dict(
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=(1, 2, 1, 1, 1),
        decoder_block_out_channels=(16, 32, 64),
        decoder_layers_per_block=(1, 2, 1, 3),
    ),
    "0.9.5": dict(
        block_out_channels=(8, 16, 32, 64, 128),
        layers_per_block=(1, 2, 1, 1, 2),
        decoder_block_out_channels=(16, 32, 64),
        decoder_layers_per_block=(2, 1, 1, 1),
    ),
}
PUBLISHED_TRANSFORMER = {
    "2b": dict(num_layers=28, attention_head_dim=64, cross_attention_dim=2048),
    "13b": dict(num_layers=48, attention_head_dim=128, cross_attention_dim=4096),
}
SMALL_TRANSFORMER = dict(
    in_channels=32,
    out_channels=32,
    num_attention_heads=4,
    attention_head_dim=16,
    cross_attention_dim=64,
    num_layers=3,
    caption_channels=96,
)


def original_transformer(name):
    for ours, theirs in [
        ("proj_in", "patchify_proj"),
        ("time_embed", "adaln_single"),
        ("norm_q", "q_norm"),
        ("norm_k", "k_norm"),
    ]:
        name = name.replace(ours, theirs)
    return name


def original_vae(name, generation):
    if name in ("latents_mean", "latents_std"):
        what = "mean-of-means" if name == "latents_mean" else "std-of-means"
        return "vae.per_channel_statistics." + what
    side, block, rest = (name.split(".", 2) + [""])[:3]
    if block == "mid_block":
        last = 9 if generation != "0.9.5" else 8
        block = "up_blocks.0" if side == "decoder" else f"down_blocks.{last}"
    elif block in ("up_blocks", "down_blocks"):
        index, rest = rest.split(".", 1)
        index = int(index)
        part = rest.split(".")[0]
        if part in ("upsamplers", "downsamplers"):
            rest = rest.split(".", 2)[2]
        elif part in ("conv_in", "conv_out"):
            rest = rest.split(".", 1)[1]
        if side == "decoder" and generation == "0.9.0":
            # 1, then (2, 3), then (4, 5, 6), (7, 8, 9): conv_in, upsampler, resnets.
            number = {0: {"resnets": 1}, 1: {"upsamplers": 2, "resnets": 3}}.get(
                index,
                {"conv_in": 3 * index - 2, "upsamplers": 3 * index - 1, "resnets": 3 * index},
            )[part]
        elif side == "decoder":
            number = 2 * index + (1 if part == "upsamplers" else 2)
        elif generation == "0.9.5":
            number = 2 * index + (1 if part == "downsamplers" else 0)
        else:
            # Three blocks of three, the third without conv_out.
            number = {"resnets": 0, "downsamplers": 1, "conv_out": 2}[part]
            number += 3 * index if index < 3 else 8
        block = f"{block}.{number}"
    elif side == "decoder" and block in ("time_embedder", "scale_shift_table"):
        block = "last_" + block
    name = ".".join(part for part in (side, block, rest) if part)
    name = name.replace("resnets", "res_blocks").replace("conv_shortcut.conv", "conv_shortcut")
    return "vae." + name.replace("norm3", "norm3.norm")


def check_transformer(names):
    """names: diffusers' to original."""
    back = convert_ltx_transformer_checkpoint_to_diffusers(
        {original: ours for ours, original in names.items()}
    )
    assert all(key == ours for key, ours in back.items()), "not diffusers' names"
    assert set(back) == set(names)


def check_vae(names, generation):
    # The converter tells 0.9.5 by 2048 channels, which only published sizes have.
    wide = SimpleNamespace(shape=(129, 2048 if generation == "0.9.5" else 512))
    key = "vae.encoder.conv_out.conv.weight"
    source = {original: ours for ours, original in names.items()}
    source[key] = wide
    back = convert_ltx_vae_checkpoint_to_diffusers(source)
    assert all(value is wide or name == value for name, value in back.items())
    assert set(back) == set(names)


def randomize(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape))


def vae_names(state, generation):
    names = {name: original_vae(name, generation) for name in state}
    check_vae(names, generation)
    return names


def transformer_names(state, prefix):
    names = {name: prefix + original_transformer(name) for name in state}
    check_transformer(names)
    return names


def write_gguf(folder, generation, state, rng):
    """1-D tensors in F32, the rest in every form in turn, as the quantizing converters mix them."""
    writer = gguf.GGUFWriter(str(folder / f"{generation}.gguf"), "ltxv")
    writer.add_string("general.name", "small")
    kinds = ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q4_K", "IQ4_XS"]
    stored = {}
    for count, (name, tensor) in enumerate(state.items()):
        values = tensor.float().numpy()
        kind = kinds[count % len(kinds)] if values.ndim == 2 else "F32"
        number = gguf.GGMLQuantizationType[kind]
        elements, size = gguf.GGML_QUANT_SIZES[number]
        if values.shape[-1] % elements != 0:
            kind, number = "F16", gguf.GGMLQuantizationType.F16
        if kind in ("Q4_K", "IQ4_XS"):  # which gguf cannot make: any bytes
            shape = (values.shape[0], values.shape[1] // elements * size)
            data = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            data = gguf.quants.quantize(values, number)
        raw = None if kind in ("F32", "F16") else number
        writer.add_tensor(original_transformer(name), data, raw_dtype=raw)
        tensor = torch.from_numpy(np.ascontiguousarray(data))
        stored[name] = tensor.view(torch.bfloat16) if kind == "BF16" else tensor
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(stored, folder / f"{generation}-gguf.safetensors")


def write_small(folder, generation, seed):
    vae = AutoencoderKLLTXVideo(latent_channels=16, **LAYOUT[generation], **SMALL[generation])
    transformer = LTXVideoTransformer3DModel(**SMALL_TRANSFORMER)
    randomize(vae, seed)
    randomize(transformer, seed + 1)
    transformer.save_pretrained(folder / generation / "transformer")

    state = transformer.state_dict()
    names = transformer_names(state, PREFIX)
    both = {names[name]: tensor for name, tensor in state.items()}
    vae_state = vae.state_dict()
    for name, original in vae_names(vae_state, generation).items():
        both[original] = vae_state[name]
    # Statistics that the published files hold and no model reads.
    for unused in ("mean-of-stds", "mean-of-stds_over_std-of-means", "channel"):
        both["vae.per_channel_statistics." + unused] = torch.zeros(16)
    save_file(both, folder / f"{generation}.safetensors")
    names = transformer_names(state, "")
    save_file(
        {names[name]: tensor for name, tensor in state.items()},
        folder / f"{generation}-bare.safetensors",
        metadata={"config": json.dumps({"transformer": {"num_attention_heads": 4}})},
    )
    write_gguf(folder, generation, state, np.random.default_rng(seed))


def write_shapes(path, shapes):
    """A BF16 file of these shapes whose data is a hole."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_published(folder):
    (folder / "published").mkdir()

    def write(name, model, names):
        shapes = {names[key]: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        write_shapes(folder / "published" / f"{name}.safetensors", shapes)
        (folder / "published" / f"{name}.json").write_text(model.to_json_string())

    for name, sizes in PUBLISHED_TRANSFORMER.items():
        with init_empty_weights():
            transformer = LTXVideoTransformer3DModel(**sizes)
        write(name, transformer, transformer_names(transformer.state_dict(), PREFIX))


def main(folder, seed):
    folder = pathlib.Path(folder)
    for offset, generation in enumerate(LAYOUT):
        write_small(folder, generation, seed + 10 * offset)
    write_published(folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
