"""Mochi. variant % 2: 0 = plain, 1 = force_zeros_for_empty_prompt."""
from . import Spec
from ..prompts import NEGATIVE
from ..text import t5

TASKS = ("t2v",)
FPS = 30


def small_tiles():
    return dict(tile_sample_min_height=32, tile_sample_min_width=32, tile_sample_stride_height=16,
                tile_sample_stride_width=16)


def build(rng, work, task, variant):
    from diffusers import (AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline,
                           MochiTransformer3DModel)
    heads, head_dim = rng.choice([(2, 8), (4, 8), (3, 16)])
    transformer = MochiTransformer3DModel(
        patch_size=2, num_attention_heads=heads, attention_head_dim=head_dim,
        num_layers=rng.choice([2, 3]), pooled_projection_dim=rng.choice([12, 16]), in_channels=12,
        text_embed_dim=32, time_embed_dim=8)
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32), latent_channels=12, out_channels=3,
        decoder_block_out_channels=(32, 32, 64, 32), layers_per_block=(1, 1, 1, 1, 1))
    tokenizer, encoder, extra = t5(rng, work, 256, 32)
    pipeline = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae=vae,
        text_encoder=encoder, tokenizer=tokenizer, transformer=transformer,
        force_zeros_for_empty_prompt=bool(variant % 2))
    height, width = rng.choice([(48, 64), (64, 48), (32, 64)])
    call = dict(height=height, width=width, num_frames=rng.choice([7, 13, 19]),
                num_inference_steps=rng.choice([4, 6]), guidance_scale=4.5)
    return Spec(pipeline, call, extra, "" if variant % 2 else NEGATIVE)
