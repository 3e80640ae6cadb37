"""Allegro. variant % 2: 0 = one VAE tile in time, 1 = two. Its VAE always tiles."""
from . import Spec
from ..prompts import NEGATIVE
from ..text import t5

TASKS = ("t2v",)
FPS = 15


def small_tiles():
    return None


def build(rng, work, task, variant):
    from diffusers import (AllegroPipeline, AllegroTransformer3DModel, AutoencoderKLAllegro,
                           EulerAncestralDiscreteScheduler)
    heads, head_dim = rng.choice([(2, 12), (3, 12), (2, 24)])
    transformer = AllegroTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=head_dim, in_channels=4, out_channels=4,
        num_layers=rng.choice([2, 3]), cross_attention_dim=heads * head_dim, sample_width=20,
        sample_height=20, sample_frames=6, caption_channels=32)
    # sample_size must be above 120 (the fixed tile overlap) and no larger than the video, or nothing is decoded.
    vae = AutoencoderKLAllegro(block_out_channels=(4, 8, 8, 8), latent_channels=4,
                               layers_per_block=1, norm_num_groups=2, sample_size=160)
    tokenizer, encoder, extra = t5(rng, work, 512, 32)
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.0001, beta_end=0.02, beta_schedule="linear", prediction_type="epsilon",
        timestep_spacing="linspace")
    pipeline = AllegroPipeline(tokenizer=tokenizer, text_encoder=encoder, vae=vae,
                               transformer=transformer, scheduler=scheduler)
    sizes = [(160, 160), (240, 160), (160, 240)]
    height, width = (160, 240) if variant % 2 else rng.choice(sizes)
    call = dict(height=height, width=width, num_frames=40 if variant % 2 else 24,
                num_inference_steps=rng.choice([3, 4]), guidance_scale=7.5,
                max_sequence_length=rng.choice([64, 512]),
                clean_caption=True)  # which diffusers does with beautifulsoup4 and ftfy alone
    return Spec(pipeline, call, extra, NEGATIVE, always_tiled=True)
