"""A random-weight HunyuanVideo of some 450 million parameters, in bfloat16: transformer 4 double and 8 single blocks of 8 heads x
128, LLaMA 10 layers of 1024, a small CLIP, the published VAE at half its width. TINY is the same network at a size of seconds."""
import os
import random
import shutil

import mid_size_ltx
import oracle.text

VAE = dict(block_out_channels=(64, 128, 256, 256))
TINY = dict(heads=2, double=1, single=2, text_width=128, text_layers=4, vae=dict(block_out_channels=(32, 32, 64, 64), layers_per_block=1))


def text_encoder(tokenizer, width, layers):
    from transformers import LlamaConfig, LlamaModel
    return LlamaModel(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 7 // 2, num_hidden_layers=layers,
        num_attention_heads=width // 32, num_key_value_heads=width // 128, rms_norm_eps=1e-5, pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}))


def build(folder, seed=1, heads=8, double=4, single=8, text_width=1024, text_layers=10, vae=None, dtype="bfloat16"):
    """Writes the pipeline into `folder`, unless a finished one is there. heads: of 128; text_width: in heads of 32."""
    if os.path.exists(os.path.join(folder, "done")):
        return
    import torch
    from diffusers import (AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline,
                           HunyuanVideoTransformer3DModel)
    shutil.rmtree(folder, ignore_errors=True)
    work = os.path.join(folder, "work")
    tokenizer = oracle.text.llama_tokenizer(work)
    tokenizer_2, clip, clip_files = oracle.text.clip(random.Random(seed), work, 256)
    with torch.device("meta"):
        transformer = HunyuanVideoTransformer3DModel(
            num_attention_heads=heads, num_layers=double, num_single_layers=single, text_embed_dim=text_width,
            pooled_projection_dim=256)
    transformer.to_empty(device="cpu")
    pipeline = HunyuanVideoPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0), vae=AutoencoderKLHunyuanVideo(**(vae or VAE)),
        text_encoder=text_encoder(tokenizer, text_width, text_layers), tokenizer=tokenizer, text_encoder_2=clip,
        tokenizer_2=tokenizer_2, transformer=transformer)
    mid_size_ltx.finish(folder, pipeline, {"tokenizer_2": clip_files},
                        [(transformer.proj_out, 0.8, False), (pipeline.vae.decoder.conv_out, 0.45, True)],
                        dict(height=64, width=64, num_frames=9), seed, dtype)
