"""Writes what diffusers' AutoencoderKLLTXVideo computes, for ltx_vae_test.cc: ltx_vae_fixtures.py OUT_FOLDER.

Every generation of the VAE, small and with random weights: OUT_FOLDER/<name>/ is the component as published, and
OUT_FOLDER/<name>/cases.safetensors holds inputs and what came out.
"""
import math
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import AutoencoderKLLTXVideo
from safetensors.torch import save_file

LATENT = 8
NOISE_SEED = 7  # of torch's global generator, which diffusers' decoder draws from
TIMESTEP = 0.05
BFLOAT16_VIDEOS = 16

ENCODER_090 = dict(block_out_channels=(8, 16, 16, 16), layers_per_block=(1, 2, 1, 1, 1))
ENCODER_095 = dict(
    block_out_channels=(8, 16, 32, 64, 128), down_block_types=("LTXVideo095DownBlock3D",) * 4,
    layers_per_block=(1, 2, 1, 1, 1), spatio_temporal_scaling=(True,) * 4,
    downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    spatial_compression_ratio=32, temporal_compression_ratio=8)
DECODER_090 = dict(decoder_block_out_channels=(8, 16, 16, 16), decoder_layers_per_block=(1, 1, 2, 1, 1))
DECODER_091 = dict(
    decoder_block_out_channels=(16, 32, 64), decoder_layers_per_block=(1, 2, 1, 1),
    decoder_spatio_temporal_scaling=(True, True, True), upsample_residual=(True, True, True),
    upsample_factor=(2, 2, 2), timestep_conditioning=True)
NOISY = dict(decoder_inject_noise=(True, True, True, False))
QUIET = dict(decoder_inject_noise=(False, False, False, False))

MODELS = {
    "v090": {**ENCODER_090, **DECODER_090},
    "v091": {**ENCODER_090, **DECODER_091, **NOISY},
    "v095": {**ENCODER_095, **DECODER_091, **QUIET},
    "v090_causal_decoder": {**ENCODER_090, **DECODER_090, "decoder_causal": True},
    "v091_causal_decoder": {**ENCODER_090, **DECODER_091, **NOISY, "decoder_causal": True},
    "v090_free_encoder": {**ENCODER_090, **DECODER_090, "encoder_causal": False},
    "v095_free_encoder": {**ENCODER_095, **DECODER_091, **QUIET, "encoder_causal": False},
}
# Wide enough that frames outweigh what is around them; nothing of theirs is compared.
MID_SIZE = {
    "v090_mid": dict(
        block_out_channels=(32, 64, 64, 64), layers_per_block=(1, 1, 1, 1, 1),
        decoder_block_out_channels=(32, 64, 64, 64), decoder_layers_per_block=(1, 1, 1, 1, 1)),
    "v095_mid": {
        **ENCODER_095, **DECODER_091, **QUIET, "block_out_channels": (16, 32, 64, 64, 128),
        "decoder_block_out_channels": (32, 64, 128)},
}


def randomize(vae, seed):
    """No zero or one is left to hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(vae.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "timestep_scale_multiplier" in name:
                continue
            if "scale_shift_table" in name or "per_channel_scale" in name:
                parameter.copy_(0.3 * noise)
            elif parameter.ndim <= 1:
                parameter.copy_(1 + 0.1 * noise if name.endswith("norm3.weight") else 0.1 * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
        vae.latents_mean.copy_(0.2 * torch.randn(LATENT, generator=generator))
        vae.latents_std.copy_(1 + 0.2 * torch.rand(LATENT, generator=generator))
    return vae.eval()


def decode(vae, latents):
    timestep = torch.tensor([TIMESTEP], dtype=latents.dtype) if vae.config.timestep_conditioning else None
    torch.manual_seed(NOISE_SEED)
    return vae.decode(latents, timestep, return_dict=False)[0]


def encode(vae, video):
    return vae.encode(video).latent_dist.parameters


def tiled(vae, tile, stride, frames=None, framewise=False, space=True):
    """`frames` is (tile, stride) in time."""
    vae.enable_tiling(tile_sample_min_height=tile, tile_sample_min_width=tile, tile_sample_stride_height=stride,
                      tile_sample_stride_width=stride, tile_sample_min_num_frames=frames and frames[0],
                      tile_sample_stride_num_frames=frames and frames[1])
    vae.use_tiling = space
    vae.use_framewise_decoding = framewise


def cases(vae, seed, with_tiles):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    out = {"latents_mean": vae.latents_mean, "latents_std": vae.latents_std}
    for frames in (1, 2, 3, 5, 9):
        z = normal(1, LATENT, frames, 2, 3)
        out[f"decode_{frames}.in"], out[f"decode_{frames}.out"] = z, decode(vae, z)
    for frames in (1, 9, 17):
        x = normal(1, 3, frames, 64, 96).clamp(-1, 1)
        out[f"encode_{frames}.in"], out[f"encode_{frames}.out"] = x, encode(vae, x)

    if with_tiles:
        tile_cases(vae, out, normal)

    # Of one clip's moments there are too few to tell a rounding error's size: it is a draw, and differs by a fifth.
    videos = [normal(1, 3, 9, 64, 96).clamp(-1, 1) for _ in range(BFLOAT16_VIDEOS)]
    out["bfloat16.videos"] = torch.stack(videos)
    out["bfloat16.exact"] = torch.stack([encode(vae, x) for x in videos])
    z = out["decode_3.in"]
    half = vae.to(torch.bfloat16)
    out["bfloat16.decode_3"] = decode(half, z.bfloat16())
    out["bfloat16.encode"] = torch.stack([encode(half, x.bfloat16()) for x in videos])
    return out


def tile_cases(vae, out, normal):
    z, x = normal(1, LATENT, 3, 4, 5), normal(1, 3, 9, 96, 160).clamp(-1, 1)
    out["space.z"], out["space.x"] = z, x
    for tile, stride in ((64, 32), (96, 64), (64, 64), (96, 80), (128, 96)):
        tiled(vae, tile, stride)
        out[f"space.decode_{tile}_{stride}"] = decode(vae, z)
        if stride % 32 == 0:
            out[f"space.encode_{tile}_{stride}"] = encode(vae, x)

    z, x = normal(1, LATENT, 6, 3, 2), normal(1, 3, 33, 96, 64).clamp(-1, 1)
    out["time.z"], out["time.x"] = z, x
    for tile, stride in ((16, 8), (24, 16), (16, 16), (20, 12)):
        for space in (False, True):
            tiled(vae, 64, 32, (tile, stride), framewise=True, space=space)
            suffix = f"{tile}_{stride}" + ("_space" if space else "")
            out[f"time.decode_{suffix}"] = decode(vae, z)
            if stride % 8 == 0:
                out[f"time.encode_{suffix}"] = encode(vae, x)
    vae.use_tiling = vae.use_framewise_decoding = False


def main(folder):
    torch.set_num_threads(1)
    for index, (name, options) in enumerate(MODELS.items()):
        vae = randomize(AutoencoderKLLTXVideo(latent_channels=LATENT, **options), 100 + index)
        path = os.path.join(folder, name)
        vae.save_pretrained(path)
        with torch.no_grad():
            made = cases(vae, 200 + index, with_tiles=name in ("v090", "v091", "v095"))
        tensors = {key: value.detach().clone().contiguous() for key, value in made.items()}
        save_file(tensors, os.path.join(path, "cases.safetensors"))
    for index, (name, options) in enumerate(MID_SIZE.items()):
        vae = randomize(AutoencoderKLLTXVideo(latent_channels=LATENT, **options), 300 + index)
        path = os.path.join(folder, name)
        vae.save_pretrained(path)
        save_file({"none": torch.zeros(1)}, os.path.join(path, "cases.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])
