"""What LTXConditionPipeline gives the transformer, on codes.

Latent frames from frame 0 on stand in the video's own tokens. A picture at a later frame becomes 16 tokens in front of
them, coded as a first frame is. Given tokens have timestep 0 and, while the others are noisy, some noise of their own.
Positions are seconds and pixels; a latent frame is where its first pixel frame is.
"""
import dataclasses

import numpy as np
import torch

import latent_code
import scenes

_FRAME_RATE = 8
_STRIDE = 4  # pixel frames of a latent frame but the first, which has one
_PIXELS = 16
_NOISE_SCALE = .15  # the pipeline's image_cond_noise_scale
# The encoder's errors.
_CODE_NOISE = .2


@dataclasses.dataclass
class Tokens:
    latents: torch.Tensor      # [B, S, 64], S is 80 or, behind a picture, 96
    timestep: torch.Tensor     # [B, S]
    coordinates: torch.Tensor  # [B, 3, S]
    is_free: torch.Tensor      # [B, 80], the video's tokens that are not given


def draw(store, chosen, pairs, code, noise, sigma, rng):
    """lay_out of `code`, of the clips `chosen`, with a picture at some frame, a beginning, or both."""
    if rng.random() < .3:  # pictures further on are learned last
        given = [rng.choice((1, 2, 3, 3, 4)) for _ in chosen]
        return lay_out(code, noise, sigma, torch.tensor(given))
    given = [rng.choice((0, 0, 0, 1)) for _ in chosen]
    frames = [rng.randrange(1, scenes.FRAMES) for _ in chosen]
    pictures = torch.from_numpy(latent_code.assemble(
        np.stack([store.picture(i, frame) for i, frame in zip(chosen, frames)]), pairs))
    return lay_out(code, noise, sigma, torch.tensor(given), pictures, torch.tensor(frames))


def lay_out(code, noise, sigma, given, pictures=None, frames=None):
    """`code` and `noise` [B, 80, 64] mixed at `sigma` [B], but for the first `given` [B] latent frames; in front of them
    `pictures` [B, 16, 64], which are given at the pixel frames `frames` [B]."""
    level = sigma.view(-1, 1, 1)
    latent_frame = torch.arange(latent_code.TOKENS) // latent_code.FIRST_FRAME_TOKENS
    is_free = latent_frame[None] >= given[:, None]
    latents = torch.where(is_free[..., None], torch.lerp(code, noise, level), _shown(code, level))
    timestep = torch.where(is_free, sigma[:, None] * 1000, 0.0)
    starts = (latent_frame * _STRIDE + 1 - _STRIDE).clamp(min=0)
    coordinates = _coordinates(starts.expand(len(code), -1))
    if pictures is not None:
        at = frames[:, None].expand(-1, latent_code.FIRST_FRAME_TOKENS)
        latents = torch.cat([_shown(pictures, level), latents], 1)
        timestep = torch.cat([torch.zeros(at.shape), timestep], 1)
        coordinates = torch.cat([_coordinates(at), coordinates], 2)
    return Tokens(latents, timestep, coordinates, is_free)


def _shown(code, level):
    error = torch.randn_like(code) * (_CODE_NOISE * torch.rand(len(code), 1, 1))
    return code + error + torch.randn_like(code) * (_NOISE_SCALE * level ** 2)


def _coordinates(frames):
    """Pixel frames [B, S] of tokens that go through whole pictures -> seconds, pixel rows and columns [B, 3, S]."""
    side = latent_code.LATENT_SIDE
    place = torch.arange(frames.shape[1]) % (side * side)
    rows, columns = (place // side * _PIXELS, place % side * _PIXELS)
    return torch.stack([frames / _FRAME_RATE, rows.expand(frames.shape), columns.expand(frames.shape)], 1)
