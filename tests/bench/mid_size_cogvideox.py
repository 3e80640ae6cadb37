"""A random-weight CogVideoX of some 390 million parameters, in bfloat16: transformer 16 layers of 16 heads x 64 with the rotary
positions of 5b, T5 8 layers of 1024, the published VAE at half its width. TINY is the same network at a size of seconds."""
import os
import shutil

import mid_size_ltx
import oracle.text

VAE = dict(block_out_channels=(64, 128, 128, 256))
TINY = dict(width=128, layers=2, text_layers=2, vae=dict(block_out_channels=(32, 32, 64, 64), layers_per_block=1))


def build(folder, seed=1, layers=16, text_layers=8, width=1024, vae=None):
    """Writes the pipeline into `folder`, unless a finished one is there. width: of the transformer and of the text encoder,
    in heads of 64."""
    if os.path.exists(os.path.join(folder, "done")):
        return
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, spiece = oracle.text.t5_tokenizer(os.path.join(folder, "work"), 226)
    encoder = mid_size_ltx.text_encoder(len(tokenizer), width, text_layers)
    # Not on the meta device: its tables of positions are computed, not drawn.
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=width // 64, attention_head_dim=64, num_layers=layers, text_embed_dim=width,
        use_rotary_positional_embeddings=True)
    pipeline = CogVideoXPipeline(
        scheduler=CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True),
        vae=AutoencoderKLCogVideoX(scaling_factor=0.7, **(vae or VAE)), text_encoder=encoder, tokenizer=tokenizer,
        transformer=transformer)
    mid_size_ltx.finish(folder, pipeline, {"tokenizer": [spiece]}, [(transformer.proj_out, 0.8, False), (pipeline.vae.decoder.conv_out, 0.45, True)],
                        dict(height=64, width=64, num_frames=9), seed)
