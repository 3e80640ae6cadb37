"""A random-weight LTX-Video of some 500 million parameters, in bfloat16 as published checkpoints are.

Transformer 16 layers of 16 heads x 64 (279 M), T5 8 layers of 1024 (103 M), and a published VAE generation at half its
width (0.9.0: 106 M, 0.9.5: 227 M). TINY is the same network at a size of seconds.
"""
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))

import oracle.text  # noqa: E402
import oracle.weights  # noqa: E402

VAES = {
    "0.9.0": dict(latent_channels=128, block_out_channels=(64, 128, 256, 256),
                  decoder_block_out_channels=(64, 128, 256, 256)),
    "0.9.5": dict(
        latent_channels=128, block_out_channels=(64, 128, 256, 512, 512),
        down_block_types=("LTXVideo095DownBlock3D",) * 4, layers_per_block=(4, 6, 6, 2, 2),
        spatio_temporal_scaling=(True,) * 4, spatial_compression_ratio=32,
        temporal_compression_ratio=8,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        decoder_block_out_channels=(128, 256, 512), decoder_layers_per_block=(5, 5, 5, 5),
        decoder_spatio_temporal_scaling=(True, True, True), decoder_inject_noise=(False,) * 4,
        upsample_residual=(True, True, True), upsample_factor=(2, 2, 2),
        timestep_conditioning=True),
}
# `build`'s arguments, with the channels and layers of each generation cut down.
TINY = dict(width=128, layers=2, text_layers=2)
TINY_VAES = {
    "0.9.0": VAES["0.9.0"] | dict(latent_channels=16, block_out_channels=(8, 16, 16, 16),
                                  decoder_block_out_channels=(8, 16, 16, 16), layers_per_block=(1, 2, 1, 1, 1),
                                  decoder_layers_per_block=(1, 1, 2, 1, 1)),
    "0.9.5": VAES["0.9.5"] | dict(latent_channels=16, block_out_channels=(8, 16, 32, 64, 128),
                                  layers_per_block=(1, 2, 1, 1, 1), decoder_block_out_channels=(16, 32, 64),
                                  decoder_layers_per_block=(1, 2, 1, 1)),
}


def text_encoder(vocabulary, width, layers):
    """A T5 encoder whose parameters are not drawn yet."""
    import torch
    from transformers import T5Config, T5EncoderModel
    with torch.device("meta"):
        encoder = T5EncoderModel(T5Config(
            vocab_size=vocabulary, d_model=width, d_kv=64, d_ff=width * 11 // 4, num_heads=width // 64,
            num_layers=layers, num_decoder_layers=1, feed_forward_proj="gated-gelu", dropout_rate=0.1))
    encoder.to_empty(device="cpu")
    # As published: one table of embeddings. Leaving the meta device gives the encoder one of its own.
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    return encoder


def finish(folder, pipeline, extra_files, last_layers, call, seed, dtype="bfloat16"):
    """Draws all parameters, sets the last layers' (layer, deviation, is centred) so that frames are not clipped, and
    writes the pipeline in `dtype`. extra_files: what save_pretrained does not write, {subfolder: [path, ...]}."""
    import torch
    pipeline.set_progress_bar_config(disable=True)
    names = ("text_encoder", "transformer", "vae", "text_encoder_2")
    parts = {name: pipeline.components[name] for name in names if name in pipeline.components}
    for index, part in enumerate(parts.values()):
        oracle.weights.randomize(part, seed + index)

    def small_call():
        with torch.no_grad():
            pipeline(prompt="a paper boat", output_type="np", num_inference_steps=2,
                     generator=torch.Generator().manual_seed(0), **call)

    for layer, deviation, centre in last_layers:
        oracle.weights.rescale_last_layer(layer, small_call, deviation, centre=centre)
    model = os.path.join(folder, "model")
    pipeline.to(getattr(torch, dtype)).save_pretrained(model)
    for subfolder, files in extra_files.items():
        for file in files:
            shutil.copy(file, os.path.join(model, subfolder))
    shutil.rmtree(os.path.join(folder, "work"))
    with open(os.path.join(folder, "done"), "w", encoding="utf-8") as file:
        file.write("\n".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.0f} M"
                             for name, part in parts.items()))


def build(folder, vae, seed=1, layers=16, text_layers=8, width=1024):
    """Writes the pipeline into `folder`, unless a finished one is there. vae: one of VAES, or a config; width: of the
    transformer and of the text encoder, in heads of 64."""
    vae = VAES[vae] if isinstance(vae, str) else vae
    done = os.path.join(folder, "done")
    if os.path.exists(done):
        return
    import torch
    from diffusers import (AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline,
                           LTXVideoTransformer3DModel)
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, spiece = oracle.text.t5_tokenizer(os.path.join(folder, "work"), 128)
    encoder = text_encoder(len(tokenizer), width, text_layers)
    with torch.device("meta"):  # every parameter is drawn below, so none is drawn twice
        transformer = LTXVideoTransformer3DModel(
            in_channels=vae["latent_channels"], out_channels=vae["latent_channels"], num_attention_heads=width // 64,
            attention_head_dim=64, cross_attention_dim=width, num_layers=layers, caption_channels=width)
    transformer.to_empty(device="cpu")
    pipeline = LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
            max_image_seq_len=4096, shift_terminal=0.1),
        vae=AutoencoderKLLTXVideo(**vae), text_encoder=encoder, tokenizer=tokenizer,
        transformer=transformer)
    finish(folder, pipeline, {"tokenizer": [spiece]}, [(transformer.proj_out, 0.8, False), (pipeline.vae.decoder.conv_out, 0.45, True)],
           dict(height=64, width=64, num_frames=9), seed)


def sizes(folder):
    with open(os.path.join(folder, "done"), encoding="utf-8") as file:
        return file.read().replace("\n", ", ")
