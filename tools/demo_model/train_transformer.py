"""Trains the text encoder and the transformer together, on codes (no VAE needed)."""
import dataclasses
import random

import numpy as np
import torch

import common
import conditions
import geometry
import latent_code
import scenes
import tokenizer
from muon import Muon

BATCH = 24
# LTXPipeline runs T5 on all 128 padded ids without a mask, so training does too; the transformer is given the first states
# and their mask, since masked ones have no effect and captions are short. LTXConditionPipeline masks them in T5 as well.
TEXT_STATES = 32
# What the pipeline passes at frame_rate 8: (4 / 8, 16, 16).
ROPE_SCALE = (4 / 8, 16, 16)
_DROPPED_CAPTIONS, _IMAGE_BATCHES = .1, .2


@dataclasses.dataclass
class _Stage:
    seed: int
    rate: float
    warmup_steps: int
    hard_pairs: float  # share of the colour pairs that are hardest to bind
    condition_batches: float  # share of the batches that are as LTXConditionPipeline makes them


# Each goes on from the weights of the one before.
STAGES = {"transformer": _Stage(seed=0, rate=3e-3, warmup_steps=60, hard_pairs=.15, condition_batches=0),
          "pairs": _Stage(seed=1, rate=1.2e-3, warmup_steps=25, hard_pairs=.5, condition_batches=0),
          "conditions": _Stage(seed=2, rate=1.2e-3, warmup_steps=25, hard_pairs=.3, condition_batches=.6)}


def build():
    from diffusers import LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel
    encoder = T5EncoderModel(T5Config(
        vocab_size=448, d_model=128, d_kv=32, d_ff=256, num_heads=4, num_layers=2,
        num_decoder_layers=1, feed_forward_proj="gated-gelu", relative_attention_num_buckets=32,
        relative_attention_max_distance=128, dropout_rate=0.0, layer_norm_epsilon=1e-6,
        tie_word_embeddings=False))
    transformer = LTXVideoTransformer3DModel(
        in_channels=latent_code.CHANNELS, out_channels=latent_code.CHANNELS,
        num_attention_heads=4, attention_head_dim=64, cross_attention_dim=256, num_layers=5,
        caption_channels=128)
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    for block in transformer.transformer_blocks:
        for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            layer.weight.data.mul_(.3)
            layer.bias.data.zero_()
    return torch.nn.ModuleList([encoder, transformer])


def load(workspace):
    from diffusers import LTXVideoTransformer3DModel
    from transformers import T5EncoderModel
    return torch.nn.ModuleList([
        T5EncoderModel.from_pretrained(workspace.text_encoder).float(),
        LTXVideoTransformer3DModel.from_pretrained(workspace.transformer,
                                                   low_cpu_mem_usage=False).float()])


def encode(encoder, tokens, captions, device="cpu", hides_padding=False):
    """States [B, 32, 128] and mask [B, 32]. `hides_padding`: from the encoder too, as LTXConditionPipeline does."""
    ids = tokenizer.padded_ids(tokens, captions).to(device)
    first = ids[:, :TEXT_STATES]
    if hides_padding:
        return encoder(first, attention_mask=first != 0)[0], first != 0
    return encoder(ids)[0][:, :TEXT_STATES], first != 0


def predict(transformer, noisy, states, mask, timestep, coordinates=None):
    """The velocity (noise minus code), [B, S, 64], of tokens at LTXPipeline's positions or at `coordinates`."""
    side = latent_code.LATENT_SIDE
    return transformer(hidden_states=noisy, encoder_hidden_states=states, timestep=timestep,
                       encoder_attention_mask=mask, num_frames=latent_code.LATENT_FRAMES,
                       height=side, width=side, rope_interpolation_scale=ROPE_SCALE,
                       video_coords=coordinates, return_dict=False)[0]


def _noise_levels(fraction, count, high=0.0):
    """Sigmas [B]: 65 % sigmoid of a normal, 35 % uniform; mostly shifted by 1.9 as the sampler's schedule is. A share
    `high` of them is above .8 instead, where the other pipeline takes most of its steps."""
    level = torch.sigmoid(torch.randn(count))
    level = torch.where(torch.rand(count) < .35, torch.rand(count), level)
    plain = .5 if fraction > .7 else .1
    shift = torch.where(torch.rand(count) < plain, 1.0, 1.9)
    level = (shift * level / (1 + (shift - 1) * level)).clamp(.005, 1.0)
    return torch.where(torch.rand(count) < high, 1 - .2 * torch.rand(count), level)


def _loss_weights():
    weights = torch.ones(latent_code.CHANNELS)
    weights[latent_code.POSITION_CHANNELS] = .5
    weights[latent_code.COLOR_CHANNELS] = 4.0  # binding of colours is learned last
    return weights


def _optimizers(modules):
    """Muon for the matrices inside; AdamW for tables, biases and the first and last projections."""
    tables = ("shared", "embed_tokens", "relative_attention_bias", "scale_shift", "proj_out",
              "proj_in")
    inner = [p for n, p in modules.named_parameters()
             if p.ndim == 2 and not any(t in n for t in tables)]
    known = {id(p) for p in inner}
    rest = [p for p in modules.parameters() if id(p) not in known]
    return inner, Muon(inner, weight_decay=.02), torch.optim.AdamW(
        rest, lr=1e-3, betas=(.9, .99), weight_decay=0.0)


def train(root, stage, steps, seconds=None, device="cpu"):
    """Runs one of STAGES."""
    workspace, told = common.Workspace(root), STAGES[stage]
    common.start(seed=told.seed)
    store, tokens = geometry.Store(workspace), tokenizer.load(workspace)
    is_first = stage == "transformer"
    modules = (build() if is_first else load(workspace)).to(device).train()
    encoder, transformer = modules
    averaged = common.Averaged(modules, .9975, resumed=not is_first)
    inner, muon, adam = _optimizers(modules)
    weights = _loss_weights().to(device)
    rng, order_rng = random.Random(told.seed), np.random.default_rng(told.seed)
    batch = min(BATCH, len(store))
    first = latent_code.FIRST_FRAME_TOKENS
    order, log = [], common.Log(stage)
    budget = common.Budget(steps, seconds)
    for _ in budget:
        rate = budget.rate(told.rate, told.warmup_steps, .4, .015)
        for group in adam.param_groups:
            group["lr"] = min(1e-3, rate) * .8
        if len(order) < batch:
            order = list(order_rng.permutation(len(store)))
        chosen, order = order[:batch], order[batch:]
        pairs = [rng.choice(scenes.HARD_PAIRS if rng.random() < told.hard_pairs else scenes.PAIRS)
                 for _ in chosen]
        captions = ["" if rng.random() < _DROPPED_CAPTIONS else scenes.written_by_hand(
            scenes.caption(store.scene(i, pair), rng), rng) for i, pair in zip(chosen, pairs)]
        code = torch.from_numpy(latent_code.assemble(store.codes[chosen], pairs))
        has_conditions = rng.random() < told.condition_batches
        from_image = not has_conditions and rng.random() < _IMAGE_BATCHES
        sigma = _noise_levels(budget.fraction(), batch, high=.3 if has_conditions else 0.0)
        noise = torch.randn_like(code)
        noisy = torch.lerp(code, noise, sigma.view(-1, 1, 1))
        timestep, coordinates = sigma * 1000, None
        is_free = torch.ones(code.shape[:2], dtype=torch.bool)
        if has_conditions:
            given = conditions.draw(store, chosen, pairs, code, noise, sigma, rng)
            noisy, timestep, is_free = given.latents, given.timestep, given.is_free
            coordinates = given.coordinates.to(device)
        elif from_image:  # the first latent frame is given, nearly clean, at timestep 0
            picture = code[:, :first]
            noisy[:, :first] = picture + torch.randn_like(picture) * (.12 * torch.rand(batch, 1, 1))
            timestep = timestep.view(-1, 1).repeat(1, latent_code.TOKENS)
            timestep[:, :first] = 0
            is_free[:, :first] = False
        with torch.autocast(device, torch.bfloat16):
            states, mask = encode(encoder, tokens, captions, device, hides_padding=has_conditions)
            velocity = predict(transformer, noisy.to(device), states, mask, timestep.to(device),
                               coordinates)
        velocity = velocity[:, -latent_code.TOKENS:].float()
        error = ((velocity - (noise - code).to(device)) ** 2)[is_free.to(device)]
        loss = (error * weights).mean()
        modules.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        adam.step()
        muon.step(rate)
        averaged.update(budget.step)
        parts = error.detach().mean(0)
        kind = "conditions" if has_conditions else "from_image" if from_image else None
        log.add(budget, **({kind: loss.item()} if kind else {
            "loss": loss.item(), "colour": parts[:6].mean().item(),
            "position": parts[6:15].mean().item(), "geometry": parts[15:].mean().item()}))
    averaged.module[0].save_pretrained(workspace.text_encoder)
    averaged.module[1].save_pretrained(workspace.transformer)
