"""HunyuanVideo. t2v, variant % 2: 0 = embedded guidance, 1 = embedded guidance plus true CFG.
i2v, variant % 3: 0 = token_replace, 1 = latent_concat, 2 = SkyReels image-to-video."""
import os

from . import Spec
from ..prompts import NEGATIVE
from ..text import clip, llama_config, llama_tokenizer

TASKS = ("t2v", "i2v")
FPS = 15


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


def build(rng, work, task, variant):
    from diffusers import (AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler,
                           HunyuanSkyreelsImageToVideoPipeline, HunyuanVideoImageToVideoPipeline,
                           HunyuanVideoPipeline)
    from transformers import LlamaModel
    latent, dim = 4, 32
    style = None
    if task == "i2v":
        style = ("token_replace", "latent_concat", "skyreels")[variant % 3]
    transformer = _transformer(rng, style, latent, dim)
    vae = AutoencoderKLHunyuanVideo(latent_channels=latent, block_out_channels=(8, 8, 16, 16),
                                    layers_per_block=1, norm_num_groups=4)
    tokenizer = llama_tokenizer(os.path.join(work, "llamatok"))
    config = llama_config(rng, tokenizer, dim)
    tokenizer_2, clip_encoder, files = clip(rng, os.path.join(work, "cliptok"), 16)
    parts = dict(tokenizer=tokenizer, transformer=transformer, vae=vae,
                 text_encoder_2=clip_encoder, tokenizer_2=tokenizer_2,
                 scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0))
    height, width = rng.choice([(32, 48), (48, 32), (48, 48)])
    call = dict(height=height, width=width, num_frames=rng.choice([5, 9, 21]),
                num_inference_steps=rng.choice([3, 4]), guidance_scale=rng.choice([6.0, 4.0]))
    extra = {"tokenizer_2": files}
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
