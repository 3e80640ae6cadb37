"""LTX-Video. variant % 3: 0 = the 0.9.0 VAE, 1 = 0.9.1 (timestep-conditioned, noise-injecting decoder),
2 = 0.9.5 and 0.9.7 (space/time down blocks, timestep-conditioned decoder). upsample: variant // 3 % 4: UPSAMPLERS."""
from . import Spec
from ..prompts import NEGATIVE
from ..text import t5

TASKS = ("t2v", "i2v", "v2v", "condition", "two_pass", "long", "upsample")
FPS = 24
# What the latent upsampler makes larger, and how; 0 as published.
UPSAMPLERS = (dict(mid_channels=32), dict(mid_channels=64, num_blocks_per_stage=2, spatial_upsample=False, temporal_upsample=True),
              dict(mid_channels=64, spatial_upsample=True, temporal_upsample=True),
              dict(mid_channels=96, num_blocks_per_stage=2, dims=2))


# Of task "condition": the conditions, the frames of the input video, and what the call has besides. What a condition
# touches: nothing; the first frame; one in the middle; the first frames, half; later frames, which begin between two
# latent ones; several, two of which overlap; a video that is too long and, from frame 9 on, one that is cut; and the
# schedules of the distilled checkpoints.
DISTILLED = dict(timesteps=[1000, 993, 987, 981, 975, 909, 725, 0.03], num_inference_steps=8, guidance_scale=1.0,
                 image_cond_noise_scale=0.0)
SECOND_PASS = dict(timesteps=[1000, 909, 725, 421, 0], num_inference_steps=5, denoise_strength=0.999)
CONDITIONED = (
    ([], None, {}),
    ([("image", 0, 1.0)], None, dict(guidance_rescale=0.7)),
    ([("image", 12, 1.0)], None, dict(image_cond_noise_scale=0.4)),
    ([("video", 0, 0.5)], 25, {}),
    ([("video", 5, 0.7)], 17, dict(image_cond_noise_scale=0.0)),
    ([("image", 0, 1.0), ("image", 24, 0.9), ("video", 8, 1.0)], 17, {}),
    ([("image", 0, 1.0)], None, DISTILLED),
    ([("video", 0, 1.0), ("image", 0, 0.3), ("image", 8, 0.25)], 9, SECOND_PASS),
    ([], None, dict(denoise_strength=0.7, num_inference_steps=6)),
    ([("video", 0, 0.9), ("video", 9, 1.0)], 33, {}),
    ([("video", 8, 0.6)], 14, dict(denoise_strength=0.6, num_inference_steps=5)),
    ([("image", 3, 0.0), ("image", 20, 1.0)], None, dict(image_cond_noise_scale=0.1)),
)

# Of task "two_pass": the conditions, the frames of the input video, what the first call has besides, and the upsampling
# and the second pass.
TWO_PASSES = (
    ([], None, DISTILLED, dict(SECOND_PASS, adain_factor=1.0, tone_map_compression_ratio=0.6)),
    ([("image", 0, 1.0)], None, dict(num_frames=17), dict(num_inference_steps=5, denoise_strength=0.4, adain_factor=0.0,
                                                          tone_map_compression_ratio=0.0)),
    ([("video", 0, 0.8), ("image", 16, 1.0)], 9, dict(num_frames=17, image_cond_noise_scale=0.2),
     dict(num_inference_steps=4, denoise_strength=0.7, adain_factor=0.5, tone_map_compression_ratio=0.0)),
)
# Of task "long": prompts between bars, whether there is an image, the scheduler, and what the call has besides. Windows: one,
# and of several the last as long as the others or shorter; prompts: one each, fewer, more; what a window holds on to: all of
# the one before, half, nothing (which still moves its own last frames to the window's beginning); images that hold, half
# hold and do not; schedules with and without a closing 0, and steps that are left out.
ANCESTRAL, FLOW = "LTXEulerAncestralRFScheduler", "FlowMatchEulerDiscreteScheduler"
SHORT = dict(num_frames=49, temporal_tile_size=24, temporal_overlap=8)
MIDDLE = dict(num_frames=49, temporal_tile_size=32, temporal_overlap=16)
LONG = dict(num_frames=65, temporal_tile_size=40, temporal_overlap=24)
TILES = dict(decode_horizontal_tiles=2, decode_vertical_tiles=2, decode_overlap=1)
PUBLISHED = [1.0, 0.9937, 0.9094, 0.725, 0.4219, 0.0]
WINDOWED = (
    (1, False, ANCESTRAL, dict(height=96, width=96, num_frames=25)),
    (2, True, ANCESTRAL, dict(MIDDLE, num_inference_steps=4, **TILES)),
    (5, True, ANCESTRAL, dict(LONG, sigmas=PUBLISHED, guidance_scale=3.0, cond_strength=1.0, **TILES)),
    (3, True, FLOW, dict(SHORT, sigmas=[1.0, 0.8, 0.4, 0.1], cond_strength=0.8, **TILES)),
    (3, False, FLOW, dict(MIDDLE, num_inference_steps=4, guidance_scale=4.0, guidance_rescale=0.7, **TILES)),
    (2, True, (0.5, 0.8), dict(LONG, num_inference_steps=5, skip_steps_sigma_threshold=0.85, **TILES)),
    (2, True, ANCESTRAL, dict(MIDDLE, num_inference_steps=4, temporal_overlap_cond_strength=0.0, **TILES)),
    (3, False, ANCESTRAL, dict(SHORT, num_inference_steps=3, adain_factor=0.0, **TILES)),
    (2, True, ANCESTRAL, dict(LONG, height=96, width=96, sigmas=PUBLISHED, adain_factor=1.0, temporal_overlap_cond_strength=1.0)),
    (4, True, FLOW, dict(LONG, num_inference_steps=4, cond_strength=0.0, skip_steps_sigma_threshold=0.0, **TILES)),
    (1, True, ANCESTRAL, dict(MIDDLE, num_inference_steps=4, guidance_scale=2.0, decode_timestep=0.1, decode_noise_scale=0.0, **TILES)),
    (2, False, ANCESTRAL, dict(SHORT, height=160, width=96, num_inference_steps=3, frame_rate=24, max_sequence_length=16,
                               decode_horizontal_tiles=1, decode_vertical_tiles=3, decode_overlap=1)),
)


def small_tiles():
    return dict(tile_sample_min_height=64, tile_sample_min_width=64, tile_sample_stride_height=32,
                tile_sample_stride_width=32)


def _transformer(rng, latent):
    from diffusers import LTXVideoTransformer3DModel
    heads, head_dim = rng.choice([(2, 16), (4, 8), (3, 12)])
    return LTXVideoTransformer3DModel(
        in_channels=latent, out_channels=latent, num_attention_heads=heads,
        attention_head_dim=head_dim, cross_attention_dim=heads * head_dim,
        num_layers=rng.choice([2, 3]), caption_channels=32)


def _vae(style, latent):
    from diffusers import AutoencoderKLLTXVideo
    if style == 0:
        return AutoencoderKLLTXVideo(
            latent_channels=latent, block_out_channels=(8, 16, 16, 16),
            decoder_block_out_channels=(8, 16, 16, 16), layers_per_block=(1, 2, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 2, 1, 1))
    decoder = dict(
        decoder_block_out_channels=(16, 32, 64), decoder_layers_per_block=(1, 2, 1, 1),
        decoder_spatio_temporal_scaling=(True, True, True), upsample_residual=(True, True, True),
        upsample_factor=(2, 2, 2), timestep_conditioning=True, latent_channels=latent)
    if style == 1:
        return AutoencoderKLLTXVideo(
            block_out_channels=(8, 16, 16, 16), layers_per_block=(1, 2, 1, 1, 1),
            decoder_inject_noise=(True, True, True, False), **decoder)
    return AutoencoderKLLTXVideo(
        block_out_channels=(8, 16, 32, 64, 128),
        down_block_types=("LTXVideo095DownBlock3D",) * 4, layers_per_block=(1, 2, 1, 1, 1),
        spatio_temporal_scaling=(True,) * 4, decoder_inject_noise=(False,) * 4,
        spatial_compression_ratio=32, temporal_compression_ratio=8,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"), **decoder)


def _scheduler(style, task):
    from diffusers import FlowMatchEulerDiscreteScheduler
    # 0.9.5 and later: plain schedule, the condition pipeline hands in its own timesteps.
    if task == "condition" and style == 1:
        return FlowMatchEulerDiscreteScheduler(shift=2.0)
    if task in ("v2v", "condition", "two_pass", "upsample"):
        return FlowMatchEulerDiscreteScheduler()
    shift = dict(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05,
                 base_image_seq_len=1024, max_image_seq_len=4096)
    if style != 2:
        shift["shift_terminal"] = 0.1
    return FlowMatchEulerDiscreteScheduler(**shift)


def _long(parts, rng, style, variant, extra):
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXEulerAncestralRFScheduler, LTXI2VLongMultiPromptPipeline
    segments, image, scheduler, changes = WINDOWED[variant % len(WINDOWED)]
    parts["scheduler"] = FlowMatchEulerDiscreteScheduler(shift=2.0 if style == 1 else 1.0)
    if scheduler != FLOW:
        eta, s_noise = (1.0, 1.0) if scheduler == ANCESTRAL else scheduler
        parts["scheduler"] = LTXEulerAncestralRFScheduler.from_config({**parts["scheduler"].config, "eta": eta, "s_noise": s_noise})
    height, width = rng.choice([(64, 96), (96, 64), (96, 96)])
    return Spec(LTXI2VLongMultiPromptPipeline(**parts), {"height": height, "width": width, **changes}, extra, NEGATIVE,
                image=image, segments=segments)


def build(rng, work, task, variant):
    from diffusers import (LTXConditionPipeline, LTXImageToVideoPipeline,
                           LTXLatentUpsamplePipeline, LTXPipeline)
    style, latent = variant % 3, 8
    transformer = _transformer(rng, latent)
    vae = _vae(style, latent)
    scheduler = _scheduler(style, task)
    height, width = rng.choice([(64, 96), (96, 64), (96, 96)])
    frames = rng.choice([9, 17, 25])
    call = dict(height=height, width=width, num_frames=frames,
                num_inference_steps=rng.choice([3, 4, 5]), guidance_scale=rng.choice([3.0, 4.5]),
                frame_rate=25)
    decode = dict(decode_timestep=0.05, decode_noise_scale=0.025) if style else {}
    call.update(decode)
    if task == "upsample":
        from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
        upsampler = LTXLatentUpsamplerModel(**{"in_channels": latent, "num_blocks_per_stage": 1, **UPSAMPLERS[variant // 3 % 4]})
        call = dict(height=height, width=width, num_frames=frames,
                    adain_factor=rng.choice([0.0, 0.5]),
                    tone_map_compression_ratio=rng.choice([0.0, 0.6]), **decode)
        # Frames behind the last whole latent are left out.
        return Spec(LTXLatentUpsamplePipeline(vae=vae, latent_upsampler=upsampler), call, negative=None, video=True,
                    video_frames=frames + variant // 3)
    tokenizer, encoder, extra = t5(rng, work, 128, 32)
    parts = dict(scheduler=scheduler, vae=vae, text_encoder=encoder, tokenizer=tokenizer,
                 transformer=transformer)
    if task == "long":
        return _long(parts, rng, style, variant, extra)
    if style and rng.random() < 0.5:
        call["guidance_rescale"] = 0.7
    if task == "t2v":
        return Spec(LTXPipeline(**parts), call, extra, NEGATIVE)
    if task == "i2v":
        return Spec(LTXImageToVideoPipeline(**parts), call, extra, NEGATIVE, image=True)
    if task == "two_pass":
        from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
        conditions, video_frames, changes, second_pass = TWO_PASSES[variant % len(TWO_PASSES)]
        call.update(height=2 * height, width=2 * width, **changes)
        inputs = {each[0] for each in conditions}
        return Spec(LTXConditionPipeline(**parts), call, extra, NEGATIVE, image="image" in inputs, video="video" in inputs,
                    video_frames=video_frames, conditions=conditions, second_pass=second_pass,
                    upsampler=LTXLatentUpsamplerModel(in_channels=latent, num_blocks_per_stage=1, **UPSAMPLERS[0]))
    call.update(num_frames=25, image_cond_noise_scale=0.15)
    if task == "v2v":
        conditions, video_frames = [("video", 0, 1.0), ("image", 16, 0.8)], 9
    else:
        conditions, video_frames, changes = CONDITIONED[variant % len(CONDITIONED)]
        call.update(changes)
    inputs = {each[0] for each in conditions}
    return Spec(LTXConditionPipeline(**parts), call, extra, NEGATIVE, image="image" in inputs, video="video" in inputs,
                video_frames=video_frames, conditions=conditions)
