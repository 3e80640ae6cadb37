"""A random-weight Mochi-1 of some 450 million parameters, in bfloat16: transformer 12 layers of 16 heads x 64, T5 8 layers of
1024, the published VAE at half its width. TINY is the same network at a size of seconds."""
import os
import shutil

import mid_size_ltx
import oracle.text

VAE = dict(encoder_block_out_channels=(32, 64, 128, 192), decoder_block_out_channels=(64, 128, 256, 384))
TINY = dict(width=128, layers=2, text_layers=2, pooled=64, vae=dict(
    encoder_block_out_channels=(32, 32, 32, 32), decoder_block_out_channels=(32, 32, 64, 64), layers_per_block=(1, 1, 1, 1, 1)))


def build(folder, seed=1, layers=12, text_layers=8, width=1024, pooled=512, vae=None):
    """Writes the pipeline into `folder`, unless a finished one is there. width: of the transformer and of the text encoder,
    in heads of 64; pooled: of the text's stream."""
    if os.path.exists(os.path.join(folder, "done")):
        return
    import torch
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, spiece = oracle.text.t5_tokenizer(os.path.join(folder, "work"), 256)
    encoder = mid_size_ltx.text_encoder(len(tokenizer), width, text_layers)
    with torch.device("meta"):
        transformer = MochiTransformer3DModel(num_attention_heads=width // 64, attention_head_dim=64, num_layers=layers,
                                              pooled_projection_dim=pooled, text_embed_dim=width)
    transformer.to_empty(device="cpu")
    pipeline = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae=AutoencoderKLMochi(**(vae or VAE)),
        text_encoder=encoder, tokenizer=tokenizer, transformer=transformer)
    mid_size_ltx.finish(folder, pipeline, {"tokenizer": [spiece]}, [(transformer.proj_out, 0.8, False), (pipeline.vae.decoder.proj_out, 0.45, True)],
                        dict(height=64, width=64, num_frames=7), seed)
