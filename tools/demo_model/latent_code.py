"""The latent code, designed rather than learned: the VAE is trained to it.

A clip is 5 x 4 x 4 = 80 tokens (17 frames: frame 0 alone, then 4 together; 16 x 16 pixels) of 64 channels:
   0-2   background RGB, 3-5 object RGB; the same in every token
   6-14  where the token is: 3 cosines of x, of y and of t. LTX has relative positions only; a constant target teaches it
         first where a token of pure noise lies
  15-63  49 principal components of asinh(signed distance / 3 px): smooth, so that an error bends an outline instead of
         making it ragged, and a token far from the object still knows where it is
"""
import os

import numpy as np

import scenes

CHANNELS = 64
LATENT_FRAMES, LATENT_SIDE = 5, 4
TOKENS = LATENT_FRAMES * LATENT_SIDE ** 2
FIRST_FRAME_TOKENS = LATENT_SIDE ** 2
COMPONENTS = 49
COLOR_CHANNELS = slice(0, 6)
POSITION_CHANNELS = slice(6, 15)
_GEOMETRY_CHANNELS = slice(15, 64)
_POSITION_SCALE, _COLOR_SCALE = 1.5, 1.2


def blocks(distance):
    """Distances [T, H, W] -> [16, 256] of frame 0 and [64, 1024] of the rest, as the components see them."""
    squashed = np.arcsinh(distance / 3.0)
    x = squashed.reshape(17, 4, 16, 4, 16).transpose(0, 1, 3, 2, 4)
    rest = x[1:].reshape(4, 4, 4, 4, 256).transpose(0, 2, 3, 1, 4).reshape(64, 1024)
    return _picture_blocks(squashed[0]), rest.astype(np.float32)


def _picture_blocks(squashed):
    x = squashed.reshape(4, 16, 4, 16).transpose(0, 2, 1, 3)
    return x.reshape(16, 256).astype(np.float32)


def colour(rgb):
    return (np.asarray(rgb, np.float32) - 127.5) / 80.0 * _COLOR_SCALE


def _cosines(count):
    index = np.arange(count)
    table = np.stack([np.cos(np.pi * (index + .5) * k / count) for k in (1, 2, 3)], 1)
    return table / table.std(0)


def _positions():
    side, time = _cosines(LATENT_SIDE), _cosines(LATENT_FRAMES)
    f, h, w = (i.ravel() for i in np.meshgrid(range(LATENT_FRAMES), range(LATENT_SIDE),
                                              range(LATENT_SIDE), indexing="ij"))
    return (_POSITION_SCALE * np.concatenate([side[w], side[h], time[f]], 1)).astype(np.float32)


class Basis:
    """Principal components of the blocks, one set for frame 0 and one for the others."""

    def __init__(self, parts):
        self._parts = parts  # {"first" | "rest": (mean, vectors [size, 49], deviations [49])}

    @classmethod
    def fit(cls, fields):
        pairs = [blocks(field) for field in fields]
        parts = {}
        for name, index in (("first", 0), ("rest", 1)):
            samples = np.concatenate([p[index] for p in pairs]).astype(np.float64)
            mean = samples.mean(0)
            centred = samples - mean
            variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
            order = np.argsort(variances)[::-1][:COMPONENTS]
            parts[name] = (mean.astype(np.float32), vectors[:, order].astype(np.float32),
                           np.sqrt(np.maximum(variances[order], 1e-12)).astype(np.float32))
        return cls(parts)

    def save(self, folder):
        flat = {f"{n}_{k}": v for n, part in self._parts.items()
                for k, v in zip(("mean", "vectors", "deviations"), part)}
        np.savez(os.path.join(folder, "basis.npz"), **flat)

    @classmethod
    def load(cls, folder):
        flat = np.load(os.path.join(folder, "basis.npz"))
        return cls({n: tuple(flat[f"{n}_{k}"] for k in ("mean", "vectors", "deviations"))
                    for n in ("first", "rest")})

    def code(self, distance):
        """Distances [T, H, W] -> geometry channels, float32 [80, 49].

        Components are whitened and then given the size (sd / sd of the sixth) ** 0.35, within .35 to 1.6: the large ones
        matter more, the small ones are not lost.
        """
        return np.concatenate([self._project(name, values) for name, values
                               in zip(("first", "rest"), blocks(distance))])

    def picture_code(self, distance):
        """Distances [H, W] of one picture, whichever frame it is -> float32 [16, 49], coded as a first frame."""
        return self._project("first", _picture_blocks(np.arcsinh(distance / 3.0)))

    def _project(self, name, values):
        mean, vectors, deviations = self._parts[name]
        size = np.clip((deviations / deviations[5]) ** .35, .35, 1.6)
        return ((values - mean) @ vectors * (size / deviations)).astype(np.float32)


_POSITIONS = _positions()


def assemble(geometry, pairs):
    """Geometry channels [B, 80, 49], or [B, 16, 49] of pictures, and (colour, background) names -> codes, float32
    [B, 80 or 16, 64]."""
    code = np.empty((*geometry.shape[:2], CHANNELS), np.float32)
    code[:, :, 0:3] = colour([scenes.BACKGROUNDS[b] for _, b in pairs])[:, None]
    code[:, :, 3:6] = colour([scenes.COLORS[c] for c, _ in pairs])[:, None]
    code[:, :, POSITION_CHANNELS] = _POSITIONS[:geometry.shape[1]]
    code[:, :, _GEOMETRY_CHANNELS] = geometry
    return code


def as_volume(tokens):
    """torch [B, 80, 64] -> [B, 64, 5, 4, 4], the VAE's layout."""
    side = LATENT_SIDE
    return tokens.view(-1, LATENT_FRAMES, side, side, CHANNELS).permute(0, 4, 1, 2, 3).contiguous()
