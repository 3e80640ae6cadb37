"""Trains the VAE to the designed code: first the decoder (code -> clip), then the encoder (clip -> code).

Training both at once from scratch stays at flat colour.
"""
import random

import numpy as np
import torch
import torch.nn.functional as F

import common
import geometry
import latent_code
import scenes
from muon import Muon

# Clips a batch by number of latent frames.
DECODER_BATCH = {2: 5, 3: 3, 5: 2}
# Single pictures are what most conditions are; the rest are the beginnings of clips.
_ENCODER_BATCH = {1: 12, 3: 4, 5: 2}


def build():
    from diffusers import AutoencoderKLLTXVideo
    vae = AutoencoderKLLTXVideo(
        latent_channels=latent_code.CHANNELS, block_out_channels=(32, 48, 64),
        decoder_block_out_channels=(64, 64, 96), layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1), spatio_temporal_scaling=(True, True, False),
        decoder_spatio_temporal_scaling=(True, True, False),
        down_block_types=("LTXVideoDownBlock3D",) * 3, patch_size=4,
        decoder_inject_noise=(False,) * 4, downsample_type=("conv",) * 3,
        upsample_residual=(True,) * 3, upsample_factor=(1,) * 3)
    # The last channel is the log-variance: fixed and tiny, so that a sample is the mean.
    out = vae.encoder.conv_out.conv
    out.weight.data[-1].zero_()
    out.bias.data[-1] = -9.0
    for name, parameter in vae.named_parameters():
        if "conv2.conv.weight" in name:
            parameter.data.mul_(.3)
    return vae


def load(workspace):
    from diffusers import AutoencoderKLLTXVideo
    return AutoencoderKLLTXVideo.from_pretrained(workspace.vae)


def clips(store, indices, pairs, latent_frames):
    """Pixels [B, 3, T, H, W] in -1..1 and coverage [B, 1, T, H, W] of the first latent frames."""
    frames = 1 + 4 * (latent_frames - 1)
    alpha = np.stack([store.coverage[i][:frames] for i in indices]).astype(np.float32) / 255
    alpha = torch.from_numpy(alpha)[:, None]

    def plane(rows):
        return torch.tensor(rows).float().view(-1, 3, 1, 1, 1) / 127.5 - 1

    front = plane([scenes.COLORS[c] for c, _ in pairs])
    back = plane([scenes.BACKGROUNDS[b] for _, b in pairs])
    return back + alpha * (front - back), alpha


def codes(store, indices, pairs, latent_frames):
    """[B, 64, F, 4, 4]"""
    tokens = torch.from_numpy(latent_code.assemble(store.codes[indices], pairs))
    return latent_code.as_volume(tokens)[:, :, :latent_frames].contiguous()


def picture_loss(got, want, alpha):
    """Weighted L1 (the object counts more, its edge most), L2, and differences along x, y and t."""
    along_x = F.pad((alpha[..., 1:] - alpha[..., :-1]).abs(), (0, 1))
    along_y = F.pad((alpha[..., 1:, :] - alpha[..., :-1, :]).abs(), (0, 0, 0, 1))
    edge = ((along_x + along_y) > .2).float()
    edge = F.max_pool3d(edge, (1, 3, 3), 1, (0, 1, 1))
    l1 = ((1 + 1.5 * alpha + 4 * edge) * (got - want).abs()).mean()

    def differences(x):
        return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :], x[:, :, 1:] - x[:, :, :-1]

    gradient = sum((a - b).abs().mean() for a, b in zip(differences(got), differences(want)))
    return l1 + ((got - want) ** 2).mean() + .7 * gradient, l1


class Trainer:
    """One half of the VAE, its optimizers and its average."""

    def __init__(self, vae, which, peak):
        self.vae = vae.train()
        self.half = getattr(vae, which)
        self.averaged = common.Averaged(self.half, .99)
        self._which, self._peak = which, peak
        self._muon = Muon([p for p in self.half.parameters() if p.ndim == 5], split=True)
        self._adam = torch.optim.AdamW([p for p in self.half.parameters() if p.ndim != 5],
                                       lr=peak, betas=(.9, .98), weight_decay=0.0)

    def step(self, loss, budget, warmup=40, flat=.3, floor=.03):
        rate = budget.rate(self._peak, warmup, flat, floor)
        for group in self._adam.param_groups:
            group["lr"] = rate * .5
        self.vae.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.half.parameters(), 1.0)
        self._adam.step()
        self._muon.step(rate)
        self.averaged.update(budget.step)

    def finish(self):
        """The VAE with the averaged half in place."""
        self.half.load_state_dict(self.averaged.module.state_dict())
        return self.vae


def train(root, decoder_steps, encoder_steps, decoder_seconds=None, encoder_seconds=None,
          device="cpu"):
    workspace = common.Workspace(root)
    common.start(seed=0)
    store = geometry.Store(workspace)
    vae = build().to(device)
    rng, pair_rng = np.random.default_rng(0), random.Random(1)
    vae = _train_decoder(vae, store, common.Budget(decoder_steps, decoder_seconds), rng, pair_rng,
                         device)
    vae = _train_encoder(vae, store, common.Budget(encoder_steps, encoder_seconds), rng, pair_rng,
                         device)
    vae.save_pretrained(workspace.vae)


def _train_decoder(vae, store, budget, rng, pair_rng, device):
    trainer, log = Trainer(vae, "decoder", 2e-3), common.Log("decoder", every=100)
    for _ in budget:
        choices = [2, 2, 3, 5] if budget.fraction() < .8 else [2, 5]
        frames = int(rng.choice(choices))
        batch = DECODER_BATCH[frames]
        chosen = np.sort(rng.integers(0, len(store), batch))
        pairs = [pair_rng.choice(scenes.PAIRS) for _ in chosen]
        want, alpha = clips(store, chosen, pairs, frames)
        code = codes(store, chosen, pairs, frames)
        code += torch.randn_like(code) * (.12 * torch.rand(batch, 1, 1, 1, 1))
        with torch.autocast(device, torch.bfloat16):
            got = vae.decoder(code.to(device))
        loss, l1 = picture_loss(got.float(), want.to(device), alpha.to(device))
        trainer.step(loss, budget)
        log.add(budget, weighted_l1=l1.item())
    return trainer.finish()


def _train_encoder(vae, store, budget, rng, pair_rng, device):
    trainer, log = Trainer(vae, "encoder", 2e-3), common.Log("encoder", every=200)
    for _ in budget:
        frames = int(rng.choice([1, 3, 3, 5]))
        batch = _ENCODER_BATCH[frames]
        chosen = np.sort(rng.integers(0, len(store), batch))
        pairs = [pair_rng.choice(scenes.PAIRS) for _ in chosen]
        pixels, _ = clips(store, chosen, pairs, frames)
        pixels = pixels + torch.randn_like(pixels) * (.02 * torch.rand(batch, 1, 1, 1, 1))
        want = codes(store, chosen, pairs, frames).to(device)
        with torch.autocast(device, torch.bfloat16):
            got = vae.encoder(pixels.to(device))[:, :latent_code.CHANNELS].float()
        trainer.step(F.smooth_l1_loss(got, want, beta=.5), budget)
        log.add(budget, **{"picture" if frames == 1 else "video": (got - want).pow(2).mean().item()})
    return trainer.finish()
