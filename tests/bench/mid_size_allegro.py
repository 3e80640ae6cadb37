"""A random-weight Allegro of some 400 million parameters, in bfloat16: transformer 12 layers of 12 heads x 96, T5 8 layers of 1024,
the published VAE at half its width, with its tiles. TINY is the same network at a size of seconds, with tiles of 160 pixels."""
import os
import shutil

import mid_size_ltx
import oracle.text

VAE = dict(block_out_channels=(64, 128, 256, 256))
TINY = dict(heads=2, layers=2, text_width=128, text_layers=2,
            vae=dict(block_out_channels=(32, 32, 64, 64), layers_per_block=1, sample_size=160))


def build(folder, seed=1, heads=12, layers=12, text_width=1024, text_layers=8, vae=None):
    """Writes the pipeline into `folder`, unless a finished one is there. heads: of 96 numbers; text_width: in heads of 64."""
    if os.path.exists(os.path.join(folder, "done")):
        return
    import torch
    from diffusers import AllegroPipeline, AllegroTransformer3DModel, AutoencoderKLAllegro, EulerAncestralDiscreteScheduler
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, spiece = oracle.text.t5_tokenizer(os.path.join(folder, "work"), 512)
    encoder = mid_size_ltx.text_encoder(len(tokenizer), text_width, text_layers)
    with torch.device("meta"):
        transformer = AllegroTransformer3DModel(
            num_attention_heads=heads, attention_head_dim=96, num_layers=layers, cross_attention_dim=heads * 96,
            caption_channels=text_width)
    transformer.to_empty(device="cpu")
    pipeline = AllegroPipeline(
        scheduler=EulerAncestralDiscreteScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", timestep_spacing="linspace"),
        vae=AutoencoderKLAllegro(**(vae or VAE)), text_encoder=encoder, tokenizer=tokenizer, transformer=transformer)
    pipeline.vae.enable_tiling()  # it decodes nothing without
    tile = pipeline.vae.config.sample_size
    mid_size_ltx.finish(folder, pipeline, {"tokenizer": [spiece]}, [(transformer.proj_out, 0.8, False), (pipeline.vae.decoder.conv_out, 0.45, True)],
                        dict(height=tile, width=tile, num_frames=24, max_sequence_length=64), seed)
