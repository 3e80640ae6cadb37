"""CogVideoX. variant % 4: 0 = 2b (sin-cos positions, DDIM), 1 = 5b (rotary, DPM), 2 = 1.5 (patch_size_t 2, rotary
"slice", DPM), 3 = 1.5 with DDIM and dynamic CFG. i2v with 0 uses learned positions, like 5b-I2V, plus rotary."""
from . import Spec
from ..prompts import NEGATIVE
from ..text import t5

TASKS = ("t2v", "i2v", "v2v", "control")
FPS = 8


def small_tiles():
    # Latent tiles of 6x5 with the default overlaps 1/6 and 1/5; other sizes can make tiled_decode return extra pixels.
    return dict(tile_sample_min_height=48, tile_sample_min_width=40)


def build(rng, work, task, variant):
    from diffusers import (AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler,
                           CogVideoXFunControlPipeline, CogVideoXImageToVideoPipeline,
                           CogVideoXPipeline, CogVideoXTransformer3DModel,
                           CogVideoXVideoToVideoPipeline)
    style, latent, frames = variant % 4, 4, 13
    patch_t = 2 if style >= 2 else None
    text_length = rng.choice([16, 24])
    heads, head_dim = rng.choice([(2, 16), (3, 16), (2, 32)])
    time_embed = rng.choice([8, 16])
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=head_dim,
        in_channels=latent * (1 if task in ("t2v", "v2v") else 2), out_channels=latent,
        time_embed_dim=time_embed, text_embed_dim=32, num_layers=rng.choice([2, 3]),
        sample_width=12, sample_height=8, sample_frames=frames, patch_size=2, patch_size_t=patch_t,
        temporal_compression_ratio=4, max_text_seq_length=text_length,
        use_rotary_positional_embeddings=style != 0 or task == "i2v",
        use_learned_positional_embeddings=task == "i2v" and style in (0, 1),
        ofs_embed_dim=time_embed if task == "i2v" and style >= 2 else None, patch_bias=patch_t is None,
        spatial_interpolation_scale=1.875, temporal_interpolation_scale=1.0)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 16, 16), latent_channels=latent, layers_per_block=1,
        norm_num_groups=4, sample_height=64, sample_width=96,
        scaling_factor=1.15258426 if style == 0 else 0.7,
        invert_scale_latents=task == "i2v" and style >= 2)
    dpm = style in (1, 2) and task != "control"
    scheduler = (CogVideoXDPMScheduler if dpm else CogVideoXDDIMScheduler)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, set_alpha_to_one=True,
        timestep_spacing="trailing", snr_shift_scale=3.0 if style == 0 else 1.0)
    tokenizer, encoder, extra = t5(rng, work, 226, 32)
    parts = dict(tokenizer=tokenizer, text_encoder=encoder, vae=vae, transformer=transformer,
                 scheduler=scheduler)
    if task == "i2v" and style in (0, 1):
        height, width = 64, 96
    else:
        height, width = rng.choice([(64, 96), (48, 64), (64, 64)])
    if style >= 2:
        height, width = min(height, 64), min(width, 96)
    call = dict(height=height, width=width,
                num_frames=9 if style == 2 and task in ("t2v", "i2v") else frames,
                num_inference_steps=rng.choice([4, 5]), guidance_scale=6.0,
                max_sequence_length=text_length, use_dynamic_cfg=style in (1, 3))
    if task == "t2v":
        return Spec(CogVideoXPipeline(**parts), call, extra, NEGATIVE)
    if task == "i2v":
        return Spec(CogVideoXImageToVideoPipeline(**parts), call, extra, NEGATIVE, image=True)
    del call["num_frames"]
    if task == "v2v":
        call["strength"] = 0.8
        return Spec(CogVideoXVideoToVideoPipeline(**parts), call, extra, NEGATIVE, video=True,
                    video_frames=frames)
    return Spec(CogVideoXFunControlPipeline(**parts), call, extra, NEGATIVE, video=True,
                video_frames=frames)
