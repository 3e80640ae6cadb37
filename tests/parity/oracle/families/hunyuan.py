"""HunyuanVideo. t2v, variant % 2: 0 = embedded guidance, 1 = embedded guidance plus true CFG.
i2v, variant % 3: 0 = token_replace, 1 = latent_concat, 2 = SkyReels image-to-video.
framepack, variant % 3: 0 = inverted anti-drifting, 1 = vanilla, 2 = inverted anti-drifting with a last image."""
import os

from . import Spec
from ..prompts import NEGATIVE
from ..text import clip, llama_config, llama_tokenizer

TASKS = ("t2v", "i2v", "framepack")
FPS = 15

# Of FramePack: latent frames of a section, pixel frames (2, 3, 2, 1, 1, 1, 5, 4, 3, 3, 2 and 6 sections; from five on the gaps
# between them are others), and whether there is true CFG. What comes out has 4 * sections * window + 1 frames.
FRAMEPACKED = ((2, 10, False), (2, 13, False), (3, 18, False), (3, 9, False), (3, 9, True), (2, 5, True),
               (2, 25, False), (2, 17, True), (2, 13, False), (3, 27, True), (4, 26, False), (2, 30, False))
# What the pipeline makes of `mu` depends on these: nothing, as in the folder of HunyuanVideo that the model cards take the rest
# from; a shift by the section's size; one that is beyond the largest.
FRAMEPACK_SCHEDULERS = (dict(shift=7.0), dict(use_dynamic_shifting=True),
                        dict(use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=16, max_shift=3.0))


def small_tiles():
    return dict(tile_sample_min_height=32, tile_sample_min_width=32, tile_sample_stride_height=16,
                tile_sample_stride_width=16)


def _transformer(rng, style, latent, dim):
    from diffusers import HunyuanVideoTransformer3DModel
    axes = rng.choice([(2, 4, 4), (4, 6, 6), (4, 8, 4)])
    heads = rng.choice([2, 3])
    in_channels = {"latent_concat": 2 * latent + 1, "skyreels": 2 * latent}.get(style, latent)
    concat_or_replace = style in ("token_replace", "latent_concat")
    return HunyuanVideoTransformer3DModel(
        in_channels=in_channels, out_channels=latent, num_attention_heads=heads,
        attention_head_dim=sum(axes), num_layers=rng.choice([1, 2]),
        num_single_layers=rng.choice([2, 3]), num_refiner_layers=rng.choice([1, 2]), patch_size=2,
        patch_size_t=1, guidance_embeds=style != "latent_concat", text_embed_dim=dim,
        pooled_projection_dim=16, rope_axes_dim=axes,
        image_condition_type=style if concat_or_replace else None)


def _llava(tokenizer, text_config):
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    # 48/2 = 24 patches a side: 576 image tokens, the number the default prompt template asks for.
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                              num_attention_heads=2, image_size=48, patch_size=2,
                              projection_dim=16)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision, text_config=text_config, image_token_index=image_id,
        image_token_id=image_id, pad_token_id=tokenizer.pad_token_id,
        vision_feature_select_strategy="default", vision_feature_layer=-2,
        projector_hidden_act="gelu")
    config.image_token_index = image_id
    processor = CLIPImageProcessorPil(size={"shortest_edge": 48},
                                      crop_size={"height": 48, "width": 48})
    encoder = LlavaForConditionalGeneration(config)
    encoder.config.image_token_index = image_id
    return encoder, processor


def _siglip():
    from transformers import SiglipVisionConfig, SiglipVisionModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    # 30 pixels are 4 whole patches of 7 and a rest, as the published 384 are 27 of 14.
    config = SiglipVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                num_attention_heads=2, image_size=30, patch_size=7)
    return SiglipVisionModel(config), SiglipImageProcessorPil(size={"height": 30, "width": 30})


def _framepack(rng, variant, parts, text_encoder, latent, dim):
    from diffusers import (FlowMatchEulerDiscreteScheduler, HunyuanVideoFramepackPipeline,
                           HunyuanVideoFramepackTransformer3DModel)
    axes = rng.choice([(2, 4, 4), (4, 6, 6), (4, 8, 4)])
    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=latent, out_channels=latent, num_attention_heads=rng.choice([2, 3]),
        attention_head_dim=sum(axes), num_layers=rng.choice([1, 2]),
        num_single_layers=rng.choice([2, 3]), num_refiner_layers=rng.choice([1, 2]), patch_size=2,
        patch_size_t=1, text_embed_dim=dim, pooled_projection_dim=16, rope_axes_dim=axes,
        has_image_proj=True, image_proj_dim=16, has_clean_x_embedder=True)
    encoder, extractor = _siglip()
    pipeline = HunyuanVideoFramepackPipeline(**{
        **parts, "text_encoder": text_encoder, "transformer": transformer, "image_encoder": encoder,
        "feature_extractor": extractor,
        "scheduler": FlowMatchEulerDiscreteScheduler(**FRAMEPACK_SCHEDULERS[(variant + variant // 3) % 3])})
    height, width = rng.choice([(32, 48), (48, 32), (80, 48)])
    window, frames, true_cfg = FRAMEPACKED[variant % len(FRAMEPACKED)]
    call = dict(height=height, width=width, num_frames=frames, latent_window_size=window,
                num_inference_steps=rng.choice([2, 3]), guidance_scale=rng.choice([9.0, 4.0]),
                sampling_type="vanilla" if variant % 3 == 1 else "inverted_anti_drifting")
    if true_cfg:
        call["true_cfg_scale"] = 2.0
    return pipeline, call, NEGATIVE if true_cfg else None


def build(rng, work, task, variant):
    from diffusers import (AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler,
                           HunyuanSkyreelsImageToVideoPipeline, HunyuanVideoImageToVideoPipeline,
                           HunyuanVideoPipeline)
    from transformers import LlamaModel
    latent, dim = 4, 32
    style = None
    if task == "i2v":
        style = ("token_replace", "latent_concat", "skyreels")[variant % 3]
    transformer = None if task == "framepack" else _transformer(rng, style, latent, dim)
    vae = AutoencoderKLHunyuanVideo(latent_channels=latent, block_out_channels=(8, 8, 16, 16),
                                    layers_per_block=1, norm_num_groups=4)
    tokenizer = llama_tokenizer(os.path.join(work, "llamatok"))
    config = llama_config(rng, tokenizer, dim)
    tokenizer_2, clip_encoder, files = clip(rng, os.path.join(work, "cliptok"), 16)
    parts = dict(tokenizer=tokenizer, transformer=transformer, vae=vae,
                 text_encoder_2=clip_encoder, tokenizer_2=tokenizer_2,
                 scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0))
    extra = {"tokenizer_2": files}
    if task == "framepack":
        pipeline, call, negative = _framepack(rng, variant, parts, LlamaModel(config), latent, dim)
        return Spec(pipeline, call, extra, negative, image=True, last_image=variant % 3 == 2)
    height, width = rng.choice([(32, 48), (48, 32), (48, 48)])
    call = dict(height=height, width=width, num_frames=rng.choice([5, 9, 21]),
                num_inference_steps=rng.choice([3, 4]), guidance_scale=rng.choice([6.0, 4.0]))
    if task == "t2v":
        if variant % 2:
            call["true_cfg_scale"] = 3.0
        return Spec(HunyuanVideoPipeline(text_encoder=LlamaModel(config), **parts), call, extra,
                    NEGATIVE if variant % 2 else None)
    if style == "skyreels":
        call.update(true_cfg_scale=6.0, guidance_scale=1.0)
        pipeline = HunyuanSkyreelsImageToVideoPipeline(text_encoder=LlamaModel(config), **parts)
        return Spec(pipeline, call, extra, NEGATIVE, image=True)
    if style == "latent_concat":
        call.update(true_cfg_scale=2.0, guidance_scale=1.0)
    encoder, processor = _llava(tokenizer, config)
    pipeline = HunyuanVideoImageToVideoPipeline(text_encoder=encoder, image_processor=processor,
                                                **parts)
    return Spec(pipeline, call, extra, NEGATIVE if style == "latent_concat" else None, image=True)
