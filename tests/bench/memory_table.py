"""HunyuanVideo's memory at its published settings, row by row beside the table that diffusers published for them.

    python tests/bench/memory_table.py --kino-render build/bin/kino-render --work DIR --markdown docs/benchmarks.md [--tiny]

The checkpoint has the published shapes and no weights (plan_table.py). What the table tells of Kino is predicted by the planner.
--tiny: two layers of each network and a plan of each kind, which show that this works.
"""
import argparse
import os
import sys

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

import plan_table
import provenance

SIZE = {"height": 512, "width": 768, "num_frames": 121, "num_inference_steps": 50}
INDEX = {"_class_name": "HunyuanVideoPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
         "text_encoder": ["transformers", "LlamaModel"], "tokenizer": ["transformers", "LlamaTokenizerFast"],
         "text_encoder_2": ["transformers", "CLIPTextModel"], "tokenizer_2": ["transformers", "CLIPTokenizer"],
         "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLHunyuanVideo"]}
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 7.0}
MODEL, TILES = {"offload": "model"}, {"vae_tiling": {}}
INT8, NF4 = {"quantize": "transformer=int8"}, {"quantize": "transformer=nf4"}
FP8 = {"storage_dtype": "transformer=float8_e4m3fn"}
# The field's rows ("State of open video generation models in Diffusers", Hugging Face's blog): what diffusers did, its peak in GB
# and its seconds; and Kino's plan. Its quantization and casting are taken to be of the transformer alone, by what they save. The
# last row is Kino's own.
ROWS = (
    ("base", 60.10, 863, {}),
    ("CPU offload", 28.87, 917, MODEL),
    ("VAE tiling", 43.58, 870, TILES),
    ("8 bit", 49.90, 983, INT8),
    ("8 bit, CPU offload", 35.66, 1041, {**INT8, **MODEL}),
    ("8 bit, VAE tiling", 36.92, 997, {**INT8, **TILES}),
    ("8 bit, both", 26.18, 1260, {**INT8, **MODEL, **TILES}),
    ("4 bit", 42.96, 867, NF4),
    ("4 bit, CPU offload", 21.99, 953, {**NF4, **MODEL}),
    ("4 bit, VAE tiling", 26.42, 889, {**NF4, **TILES}),
    # Here the text encoder would be the largest.
    ("4 bit, both", 14.15, 995, {"quantize": "nf4", **MODEL, **TILES}),
    ("FP8 casting", 51.70, 856, FP8),
    ("FP8 casting, CPU offload", 21.99, 983, {**FP8, **MODEL}),
    ("FP8 casting, VAE tiling", 35.17, 867, {**FP8, **TILES}),
    ("FP8 casting, both", 20.44, 1013, {**FP8, **MODEL, **TILES}),
    ("group offload of 8 blocks, VAE tiling", 15.67, 925, {"offload": "block:8", **TILES}),
    ("group offload of 1 block, VAE tiling", 7.72, 881, {"offload": "block:1", **TILES}),
    ("group offload of leaves, VAE tiling", 6.66, 887, {"offload": "leaf", **TILES}),
    ("group offload of leaves, FP8 casting, VAE tiling", 6.56, 885, {"offload": "leaf", **FP8, **TILES}),
    ("not published: leaves, VAE tiling, feed-forward in chunks", None, None, {"offload": "leaf", "chunk_feed_forward": 4096, **TILES}),
)
TINY_ROWS = ("base", "VAE tiling", "4 bit, both", "group offload of leaves, VAE tiling")


def make_model(folder, layers):
    """layers: what differs from the published numbers of layers."""
    llama = LlamaConfig(vocab_size=128320, hidden_size=4096, intermediate_size=14336,
                        num_hidden_layers=layers.get("llama", 32), num_attention_heads=32, num_key_value_heads=8,
                        max_position_embeddings=8192, rms_norm_eps=1e-5,
                        rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    clip = CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072,
                          num_hidden_layers=layers.get("clip", 12), num_attention_heads=12, eos_token_id=2)
    blocks = {name: layers[name] for name in ("num_layers", "num_single_layers") if name in layers}
    with torch.device("meta"):
        modules = {"text_encoder": (LlamaModel(llama), llama.to_dict()), "text_encoder_2": (CLIPTextModel(clip), clip.to_dict())}
        for name, module in (("transformer", HunyuanVideoTransformer3DModel(**blocks)), ("vae", AutoencoderKLHunyuanVideo())):
            modules[name] = (module, dict(module.config))
    plan_table.write_sparse_model(folder, modules, INDEX, SCHEDULER)


def option_text(plan):
    names = {"offload": "--offload {}", "chunk_feed_forward": "--chunk-feed-forward {}", "quantize": "--quantize {}", "storage_dtype": "--storage-dtype {}", "vae_tiling": "--vae-tiling"}
    return " ".join(names[name].format(value) for name, value in plan.items()) or "--offload none"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kino-render", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--markdown", help="append the table to this page")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if not arguments.tiny or row[0] in TINY_ROWS]
    make_model(arguments.work, {"llama": 4, "clip": 2, "num_layers": 2, "num_single_layers": 2} if arguments.tiny else {})
    text = (f"## HunyuanVideo at {SIZE['height']}x{SIZE['width']}x{SIZE['num_frames']}, predicted\n\n"
            f"{provenance.line()}; **Kino's peaks are predicted by its planner, no GPU has run them**: bfloat16, sequence length 128, "
            f"{SIZE['num_inference_steps']} steps; offloaded weights at home in pinned memory. The published figures are of diffusers "
            "on an A100 with 80 GB (Hugging Face's blog, State of open video generation models in Diffusers).\n\n"
            "    python tests/bench/memory_table.py --kino-render build/bin/kino-render --work DIR --markdown docs/benchmarks.md\n\n"
            "| published row | published peak (GB) | published time (s) | Kino's plan | predicted peak (GB) | measured peak (GB) | "
            "measured time (s) |\n|---|---|---|---|---|---|---|\n")
    above = []
    for name, peak, seconds, plan in rows:
        found = plan_table.estimate(arguments.kino_render, arguments.work, {"offload": "none", **plan}, SIZE,
                                    {"hunyuan_video": {"max_sequence_length": 128}})
        predicted = int(found["peak_device_bytes"]) / 1e9
        if peak is not None and predicted > peak:
            above.append(name)
        text += f"| {name} | {'' if peak is None else f'{peak:.2f}'} | {seconds or ''} | `{option_text(plan)}` | {predicted:.2f} | | |\n"
    provenance.publish(text, arguments.markdown)
    if above:
        sys.exit(f"above the published peak: {', '.join(above)}")


if __name__ == "__main__":
    main()
