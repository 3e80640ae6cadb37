"""Fine-tunes the decoder on codes as the transformer makes them: partly denoised, with the colours that guidance gives.

Guidance 4 overshoots the colours (a background by about 35 grey levels); the decoder learns to snap to the palette.
Two fifths of the batches stay with true codes, their colours stretched from the palette's mean.
"""
import random

import numpy as np
import torch

import common
import geometry
import latent_code
import scenes
import tokenizer
import train_transformer
import train_vae

_BATCH = 24
# A short guided generation from pure noise, enough for its colours.
_SIGMAS = (1.0, .96, .9, .8, .62, .35, 0.0)
# Codes' colours that are further off than this are the wrong colours, not overshoot.
_WRONG_COLOUR = 1.2


class _Generator:
    def __init__(self, workspace, device):
        self._encoder, self._transformer = train_transformer.load(workspace).to(device).eval()
        self._tokens, self._device = tokenizer.load(workspace), device

    def prompt(self, captions):
        with torch.autocast(self._device, torch.bfloat16):
            return train_transformer.encode(
                self._encoder, self._tokens, [*captions, *[""] * len(captions)], self._device)

    def denoise(self, code, sigmas, text, guidance):
        states, mask = text
        for sigma, following in zip(sigmas[:-1], sigmas[1:]):
            timestep = torch.full((2 * len(code),), float(sigma) * 1000, device=self._device)
            with torch.autocast(self._device, torch.bfloat16):
                velocity = train_transformer.predict(self._transformer, torch.cat([code, code]),
                                                     states, mask, timestep).float()
            told, untold = velocity.chunk(2)
            code = code + (following - sigma) * (untold + guidance * (told - untold))
        return code


@torch.no_grad()
def _pool(workspace, store, size, rng, pair_rng, device):
    """`size` entries (geometry index, pair, code [80, 64]) with the transformer's own kind of errors."""
    generator = _Generator(workspace, device)
    pool = []
    while len(pool) < size:
        chosen = np.sort(rng.integers(0, len(store), min(_BATCH, size)))
        pairs = [pair_rng.choice(scenes.PAIRS) for _ in chosen]
        captions = [scenes.caption(store.scene(i, p), pair_rng) for i, p in zip(chosen, pairs)]
        text = generator.prompt(captions)
        code = torch.from_numpy(latent_code.assemble(store.codes[chosen], pairs)).to(device)
        start = .2 + .4 * pair_rng.random()
        sigmas = np.linspace(start, 0, pair_rng.choice([1, 2, 3]) + 1)
        partly = torch.lerp(code, torch.randn_like(code), start)
        partly = generator.denoise(partly, sigmas, text, pair_rng.choice([1, 3, 4, 4]))
        if len(pool) < size // 2:  # the colours of a whole guided generation, the geometry kept
            whole = generator.denoise(torch.randn_like(code), _SIGMAS, text,
                                      pair_rng.choice([3, 4, 4, 5]))
            colours = latent_code.COLOR_CHANNELS
            shift = (whole - code)[:, :, colours].mean(1).abs().amax(1)
            right = shift < _WRONG_COLOUR
            partly[right, :, colours] = whole[right, :, colours]
        pool += [(int(i), pair, z.cpu()) for i, pair, z in zip(chosen, pairs, partly)]
    return pool


def _mean_colours():
    rows = [np.concatenate([latent_code.colour(scenes.BACKGROUNDS[b]),
                            latent_code.colour(scenes.COLORS[c])]) for c, b in scenes.PAIRS]
    return torch.from_numpy(np.mean(rows, 0)).float().view(1, 6, 1, 1, 1)


def train(root, steps, pool_size, seconds=None, device="cpu"):
    workspace = common.Workspace(root)
    common.start(seed=2)
    store = geometry.Store(workspace)
    rng, pair_rng = np.random.default_rng(2), random.Random(2)
    pool = _pool(workspace, store, pool_size, rng, pair_rng, device)
    mean = _mean_colours()
    vae = train_vae.load(workspace).to(device)
    trainer, log = train_vae.Trainer(vae, "decoder", 1e-3), common.Log("fine-tuning", every=80)
    budget = common.Budget(steps, seconds)
    for _ in budget:
        frames = int(rng.choice([2, 2, 3, 5]))
        batch = train_vae.DECODER_BATCH[frames]
        if rng.random() < .6:
            entries = [pool[j] for j in rng.integers(0, len(pool), batch)]
            chosen, pairs = [e[0] for e in entries], [e[1] for e in entries]
            code = latent_code.as_volume(torch.stack([e[2] for e in entries]))
            code, kind = code[:, :, :frames].contiguous(), "made"
        else:
            chosen = np.sort(rng.integers(0, len(store), batch))
            pairs = [pair_rng.choice(scenes.PAIRS) for _ in chosen]
            code, kind = train_vae.codes(store, chosen, pairs, frames), "true"
            code += torch.randn_like(code) * (.15 * torch.rand(batch, 1, 1, 1, 1))
            stretch = .85 + .6 * torch.rand(batch, 1, 1, 1, 1)
            code[:, :6] = mean + (code[:, :6] - mean) * stretch
            code[:, :6] += .12 * torch.randn(batch, 6, 1, 1, 1)
        want, alpha = train_vae.clips(store, chosen, pairs, frames)
        with torch.autocast(device, torch.bfloat16):
            got = vae.decoder(code.to(device))
        loss, l1 = train_vae.picture_loss(got.float(), want.to(device), alpha.to(device))
        trainer.step(loss, budget, warmup=30, flat=.15, floor=.02)
        log.add(budget, **{kind: l1.item()})
    trainer.finish().save_pretrained(workspace.vae)
