"""Trains the text encoder and the transformer together, on codes (no VAE needed)."""
import random

import numpy as np
import torch

import common
import geometry
import latent_code
import scenes
import tokenizer
from muon import Muon

BATCH = 24
# LTXPipeline runs T5 on all 128 padded ids without a mask, so training does too; the transformer is given the first states
# and their mask, since masked ones have no effect and captions are short.
TEXT_STATES = 32
# What the pipeline passes at frame_rate 8: (4 / 8, 16, 16).
ROPE_SCALE = (4 / 8, 16, 16)
_DROPPED_CAPTIONS, _IMAGE_BATCHES = .1, .2


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


def encode(encoder, tokens, captions, device="cpu"):
    """States [B, 32, 128] and mask [B, 32]."""
    ids = tokenizer.padded_ids(tokens, captions).to(device)
    return encoder(ids)[0][:, :TEXT_STATES], ids[:, :TEXT_STATES] != 0


def predict(transformer, noisy, states, mask, timestep):
    """The velocity (noise minus code), [B, 80, 64]."""
    side = latent_code.LATENT_SIDE
    return transformer(hidden_states=noisy, encoder_hidden_states=states, timestep=timestep,
                       encoder_attention_mask=mask, num_frames=latent_code.LATENT_FRAMES,
                       height=side, width=side, rope_interpolation_scale=ROPE_SCALE,
                       return_dict=False)[0]


def _noise_levels(fraction, count):
    """Sigmas [B]: 65 % sigmoid of a normal, 35 % uniform; mostly shifted by 1.9 as the sampler's schedule is."""
    level = torch.sigmoid(torch.randn(count))
    level = torch.where(torch.rand(count) < .35, torch.rand(count), level)
    plain = .5 if fraction > .7 else .1
    shift = torch.where(torch.rand(count) < plain, 1.0, 1.9)
    return (shift * level / (1 + (shift - 1) * level)).clamp(.005, 1.0)


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


def train(root, steps, seconds=None, resume=False, device="cpu"):
    """`resume`: goes on from the saved weights with half of the clips in the colour pairs that are hardest to bind."""
    workspace = common.Workspace(root)
    common.start(seed=1 if resume else 0)
    store, tokens = geometry.Store(workspace), tokenizer.load(workspace)
    modules = (load(workspace) if resume else build()).to(device).train()
    encoder, transformer = modules
    averaged = common.Averaged(modules, .9975, resumed=resume)
    inner, muon, adam = _optimizers(modules)
    weights = _loss_weights().to(device)
    rng, order_rng = random.Random(int(resume)), np.random.default_rng(int(resume))
    batch = min(BATCH, len(store))
    first = latent_code.FIRST_FRAME_TOKENS
    hard_share = .5 if resume else .15
    order, log = [], common.Log("pairs" if resume else "transformer")
    budget = common.Budget(steps, seconds)
    for _ in budget:
        rate = budget.rate(1.2e-3 if resume else 3e-3, 25 if resume else 60, .4, .015)
        for group in adam.param_groups:
            group["lr"] = min(1e-3, rate) * .8
        if len(order) < batch:
            order = list(order_rng.permutation(len(store)))
        chosen, order = order[:batch], order[batch:]
        pairs = [rng.choice(scenes.HARD_PAIRS if rng.random() < hard_share else scenes.PAIRS)
                 for _ in chosen]
        captions = ["" if rng.random() < _DROPPED_CAPTIONS else scenes.written_by_hand(
            scenes.caption(store.scene(i, pair), rng), rng) for i, pair in zip(chosen, pairs)]
        code = torch.from_numpy(latent_code.assemble(store.codes[chosen], pairs))
        from_image = rng.random() < _IMAGE_BATCHES
        sigma = _noise_levels(budget.fraction(), batch)
        noise = torch.randn_like(code)
        noisy = torch.lerp(code, noise, sigma.view(-1, 1, 1))
        timestep = sigma * 1000
        if from_image:  # the first latent frame is given, nearly clean, at timestep 0
            given = code[:, :first]
            noisy[:, :first] = given + torch.randn_like(given) * (.12 * torch.rand(batch, 1, 1))
            timestep = timestep.view(-1, 1).repeat(1, latent_code.TOKENS)
            timestep[:, :first] = 0
        with torch.autocast(device, torch.bfloat16):
            states, mask = encode(encoder, tokens, captions, device)
            velocity = predict(transformer, noisy.to(device), states, mask, timestep.to(device))
        error = (velocity.float() - (noise - code).to(device)) ** 2
        if from_image:
            error = error[:, first:]
        loss = (error * weights).mean()
        modules.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        adam.step()
        muon.step(rate)
        averaged.update(budget.step)
        parts = error.detach().mean((0, 1))
        log.add(budget, **({"from_image": loss.item()} if from_image else {
            "loss": loss.item(), "colour": parts[:6].mean().item(),
            "position": parts[6:15].mean().item(), "geometry": parts[15:].mean().item()}))
    averaged.module[0].save_pretrained(workspace.text_encoder)
    averaged.module[1].save_pretrained(workspace.transformer)
