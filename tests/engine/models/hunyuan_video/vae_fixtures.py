"""AutoencoderKLHunyuanVideo of diffusers, small and random, and what it makes of latents and videos.

vae_fixtures.py FOLDER: for each model a folder with its weights and cases.safetensors. A case's name says its tiles, as
vae_test.cc reads it: KIND_FRAMES, then s_TILE_STRIDE of space and t_TILE_STRIDE or t_off of time, if they are not the
class's own.
"""
import math
import os
import sys

import torch
from diffusers import AutoencoderKLHunyuanVideo
from safetensors.torch import save_file

LATENT = 4
BFLOAT16_VIDEOS = 8
SMALL = dict(latent_channels=LATENT, norm_num_groups=4, layers_per_block=1)
THREE = dict(down_block_types=("HunyuanVideoDownBlock3D",) * 3, up_block_types=("HunyuanVideoUpBlock3D",) * 3)
MODELS = {
    "usual": dict(**SMALL, block_out_channels=(8, 12, 16, 16)),
    # With a channel in a group, and faint inputs, the norms' eps counts.
    "faint": dict(**{**SMALL, "layers_per_block": 2, "norm_num_groups": 8}, block_out_channels=(8, 8, 16, 8)),
    "no_attention": dict(**SMALL, block_out_channels=(8, 8, 8, 16), mid_block_add_attention=False),
    "ratio_4": dict(**SMALL, **THREE, block_out_channels=(8, 12, 16), spatial_compression_ratio=4),
    "ratio_16": dict(**SMALL, block_out_channels=(8, 8, 16, 16), spatial_compression_ratio=16),
}
TIME_TILES = ((8, 4), (16, 16), (20, 12), (12, 8), (10, 7), (11, 9), (9, 9))


def randomize(vae, seed):
    """No zero or one is left to hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(vae.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.2 * noise + 0.3)
            else:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
    return vae.eval()


class Tiles:
    """A VAE's tiles for a while: (tile, stride) in space and time, or None for the class's own; time may be "off"."""

    def __init__(self, vae, space=None, time=None):
        self.vae = vae
        vae.use_tiling = space is not None
        vae.use_framewise_decoding = vae.use_framewise_encoding = time != "off"
        tile, stride = space or (256, 192)
        frames, step = time if time not in (None, "off") else (16, 12)
        vae.tile_sample_min_height = vae.tile_sample_min_width = tile
        vae.tile_sample_stride_height = vae.tile_sample_stride_width = stride
        vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames = frames, step
        self.name = ("" if space is None else f"s_{tile}_{stride}.") + (
            "" if time is None else "t_off." if time == "off" else f"t_{frames}_{step}.")

    def decode(self, z):
        return self.vae.decode(z.clone(), return_dict=False)[0]

    def encode(self, x):
        return self.vae.encode(x.clone()).latent_dist.parameters


def cases(vae, seed, with_tiles, scale):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return scale * torch.randn(*shape, generator=generator)

    ratio = vae.config.spatial_compression_ratio
    out = {}
    latents = {frames: normal(1, LATENT, frames, 2, 3) for frames in (1, 2, 4, 5, 6, 7, 9, 10)}
    videos = {frames: normal(1, 3, frames, 2 * ratio, 3 * ratio).clamp(-1, 1)
              for frames in (1, 5, 13, 16, 17, 21, 24, 33, 37)}
    for frames, z in latents.items():
        out[f"latents_{frames}"] = z
    for frames, x in videos.items():
        out[f"video_{frames}"] = x

    def add(tiles, decodes=(), encodes=()):
        for frames in decodes:
            out[f"decode_{frames}.{tiles.name}"] = tiles.decode(latents[frames])
        for frames in encodes:
            out[f"encode_{frames}.{tiles.name}"] = tiles.encode(videos[frames])

    add(Tiles(vae), latents, videos)
    add(Tiles(vae, time="off"), (6,), (21,))
    if with_tiles:
        for time in TIME_TILES:
            add(Tiles(vae, time=time), (7, 10), (24, 37))
        # 7 x 11 latents: several tiles along each axis, the last ones smaller.
        latents[3], videos[9] = normal(1, LATENT, 3, 7, 11), normal(1, 3, 9, 7 * ratio, 11 * ratio).clamp(-1, 1)
        latents[8], videos[29] = normal(1, LATENT, 8, 5, 7), normal(1, 3, 29, 5 * ratio, 7 * ratio).clamp(-1, 1)
        for frames in (3, 8):
            out[f"latents_{frames}"] = latents[frames]
        for frames in (9, 29):
            out[f"video_{frames}"] = videos[frames]
        for tile, stride in ((32, 24), (32, 16), (24, 24), (36, 24), (40, 28), (30, 28), (20, 10)):
            add(Tiles(vae, space=(tile, stride)), (3,), (9,))
        add(Tiles(vae, space=(32, 24), time="off"), (8,), (29,))
        add(Tiles(vae, space=(32, 24)), (8,), (29,))
        add(Tiles(vae, space=(36, 16), time=(8, 4)), (8,), (29,))

    # Of one clip there are too few numbers to tell a rounding error's size.
    tiles = Tiles(vae)
    many = [normal(1, 3, 17, 2 * ratio, 3 * ratio).clamp(-1, 1) for _ in range(BFLOAT16_VIDEOS)]
    out["bfloat16.videos"] = torch.stack(many)
    out["bfloat16.exact"] = torch.stack([tiles.encode(x) for x in many])
    vae.to(torch.bfloat16)
    out["bfloat16.encode"] = torch.stack([tiles.encode(x.bfloat16()) for x in many])
    out["bfloat16.decode"] = tiles.decode(latents[9].bfloat16())
    return out


def main(folder):
    torch.set_num_threads(1)
    for index, (name, options) in enumerate(MODELS.items()):
        vae = randomize(AutoencoderKLHunyuanVideo(**options), 100 + index)
        path = os.path.join(folder, name)
        vae.save_pretrained(path)
        with torch.no_grad():
            made = cases(vae, 200 + index, with_tiles=name == "usual", scale=0.1 if name == "faint" else 1)
        save_file({key: value.detach().clone().contiguous() for key, value in made.items()},
                  os.path.join(path, "cases.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])
