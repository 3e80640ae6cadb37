"""The planner's table for LTX-Video's real shapes, without the weights: checkpoints are sparse files with a header only.

    python tests/bench/plan_table.py --kino-render build/bin/kino-render --work DIR --markdown docs/benchmarks.md [--tiny]

--tiny: two layers of each network and a plan of each kind, which show that this works. What its tables tell is predicted, not
measured: memory and operations from shapes, time from a GPU's bounds (engine/describe/machine_speed.h). How long the prediction
itself takes is measured, and stands below them.
"""
import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import time

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from transformers import T5Config, T5EncoderModel

import provenance

SIZE = {"height": 512, "width": 768, "num_frames": 121, "num_inference_steps": 50}
# Of which the operations are told.
SHAPES = ((480, 704, 161), (512, 768, 121), (704, 1216, 121))
PUBLISHED = "17.75 GB on an A100, LTX-Video's own figure for the plain 2B run"
OPTIONS = [
    ("none", {"offload": "none"}),
    ("model", {"offload": "model"}),
    ("block:1", {"offload": "block:1"}),
    ("block:2", {"offload": "block:2"}),
    ("block:4", {"offload": "block:4"}),
    ("leaf", {"offload": "leaf"}),
    ("sequential", {"offload": "sequential"}),
    ("float8_e4m3fn", {"offload": "none", "storage_dtype": "float8_e4m3fn"}),
    ("int8", {"offload": "none", "quantize": "int8"}),
    ("fp8wo", {"offload": "none", "quantize": "fp8wo"}),
    ("nf4", {"offload": "none", "quantize": "nf4"}),
    ("nf4 + block:1", {"offload": "block:1", "quantize": "nf4"}),
]
VAE_091 = dict(  # config.json of the published 0.9.1 VAE
    block_out_channels=(128, 256, 512, 512), decoder_block_out_channels=(256, 512, 1024),
    layers_per_block=(4, 3, 3, 3, 4), decoder_layers_per_block=(5, 6, 7, 8),
    spatio_temporal_scaling=(True, True, True, False), decoder_spatio_temporal_scaling=(True, True, True),
    decoder_inject_noise=(True, True, True, False), upsample_residual=(True, True, True), upsample_factor=(2, 2, 2),
    timestep_conditioning=True, latent_channels=128)
VAE_097 = dict(  # of 0.9.5, 0.9.7 and 0.9.8
    block_out_channels=(128, 256, 512, 1024, 2048), layers_per_block=(4, 6, 6, 2, 2),
    decoder_block_out_channels=(256, 512, 1024), decoder_layers_per_block=(5, 5, 5, 5),
    down_block_types=("LTXVideo095DownBlock3D",) * 4, downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    spatio_temporal_scaling=(True, True, True, True), decoder_spatio_temporal_scaling=(True, True, True),
    decoder_inject_noise=(False, False, False, False), upsample_residual=(True, True, True), upsample_factor=(2, 2, 2),
    timestep_conditioning=True, latent_channels=128, spatial_compression_ratio=32, temporal_compression_ratio=8)
MODELS = {
    "2B": (dict(num_layers=28, attention_head_dim=64, cross_attention_dim=2048), VAE_091),
    "13B": (dict(num_layers=48, attention_head_dim=128, cross_attention_dim=4096), VAE_097),
}
LTX_INDEX = {"_class_name": "LTXPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
             "text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
             "transformer": ["diffusers", "LTXVideoTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLLTXVideo"]}
LTX_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "base_shift": 0.95,
                 "max_shift": 2.05, "base_image_seq_len": 1024, "max_image_seq_len": 4096, "shift_terminal": 0.1}
MOCHI_INDEX = {**LTX_INDEX, "_class_name": "MochiPipeline", "force_zeros_for_empty_prompt": False,
               "transformer": ["diffusers", "MochiTransformer3DModel"], "vae": ["diffusers", "AutoencoderKLMochi"]}
MOCHI_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True, "shift": 1.0}
TINY_OPTIONS = ("none", "block:1", "nf4")


def write_sparse(folder, module, config, name):
    os.makedirs(folder, exist_ok=True)
    header, end = {}, 0
    for key, tensor in module.state_dict().items():
        size = tensor.numel() * 2
        header[key] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)


def write_sparse_model(folder, modules, index, scheduler):
    """modules: of each component, the module on the meta device and its config."""
    for name, (module, config) in modules.items():
        of_transformers = index[name][0] == "transformers"
        write_sparse(f"{folder}/{name}", module, config,
                     "model.safetensors" if of_transformers else "diffusion_pytorch_model.safetensors")
    os.makedirs(f"{folder}/scheduler", exist_ok=True)
    for path, content in (("scheduler/scheduler_config.json", scheduler), ("model_index.json", index)):
        with open(f"{folder}/{path}", "w", encoding="utf-8") as file:
            json.dump(content, file)


def write_model(folder, transformer, vae, index, scheduler, text_layers=24):
    """transformer, vae: modules on the meta device."""
    with torch.device("meta"):
        t5 = T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=text_layers, num_heads=64, vocab_size=32128,
                      feed_forward_proj="gated-gelu")
        encoder = T5EncoderModel(t5)
    write_sparse_model(folder, {"text_encoder": (encoder, t5.to_dict()), "transformer": (transformer, dict(transformer.config)),
                                "vae": (vae, dict(vae.config))}, index, scheduler)


def make_model(folder, transformer, vae, text_layers=24):
    with torch.device("meta"):
        modules = LTXVideoTransformer3DModel(**transformer), AutoencoderKLLTXVideo(**vae)
    write_model(folder, *modules, LTX_INDEX, LTX_SCHEDULER, text_layers)


def estimate(kino_render, model, plan, size=SIZE, options={"ltx": {"max_sequence_length": 128}}):
    """The one plan in the planner's table that is just what is asked for. options: the family's."""
    request = f"{model}/request.json"
    with open(request, "w", encoding="utf-8") as file:
        json.dump({"prompt": "x " * 200, "plan": {**plan, "weights_home": "pinned" if plan["offload"] != "none" else "file"},
                   **options, **SIZE, **size}, file)
    done = subprocess.run([kino_render, "plan", "--model", model, "--request", request, "--device", "cuda:0",
                           "--max-device-memory", "80GiB", "--max-host-memory", "256GiB", "--json"],
                          capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    plans = [p for p in json.loads(done.stdout)["plans"]
             if all((name in p["plan"]) == (name in plan) for name in ("vae_tiling", "chunk_feed_forward"))]
    return plans[0]


def operations(kino_render, folders):
    """A table of floating-point operations."""
    heads = " | ".join(f"{name}: one step with guidance (TFLOP) | decode (TFLOP)" for name in folders)
    text = f"\n| height x width x frames | {heads} |\n|---|" + "---|---|" * len(folders) + "\n"
    for height, width, frames in SHAPES:
        text += f"| {height} x {width} x {frames} |"
        for folder in folders.values():
            size = {"height": height, "width": width, "num_frames": frames}
            found = estimate(kino_render, folder, {"offload": "none"}, size)
            flops = {stage["stage"]: stage["flops"] for stage in found["stages"]}
            text += f" {flops['DENOISE'] / SIZE['num_inference_steps'] / 1e12:.2f} | {flops['DECODE'] / 1e12:.2f} |"
        text += "\n"
    return text


def seconds(command, repeats=5):
    """Of a process from start to end, the median."""
    taken = []
    for _ in range(repeats):
        start = time.monotonic()
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        taken.append(time.monotonic() - start)
    return statistics.median(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kino-render", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--markdown", help="append the tables to this page")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    layers = {"num_layers": 2} if arguments.tiny else {}
    options = [(name, plan) for name, plan in OPTIONS if not arguments.tiny or name in TINY_OPTIONS]
    text = (f"## LTX-Video at {SIZE['height']}x{SIZE['width']}x{SIZE['num_frames']}, predicted\n\n"
            f"{provenance.line()}; **predicted by the planner, run by no GPU**: bfloat16, sequence length 128, "
            f"{SIZE['num_inference_steps']} steps, guidance; offloaded weights at home in pinned memory over PCIe 5; times are "
            f"bounds of an H100-class GPU. Published: {PUBLISHED}.\n\n"
            "    python tests/bench/plan_table.py --kino-render build/bin/kino-render --work DIR --markdown docs/benchmarks.md\n\n"
            "| plan | " + " | ".join(f"{name}: peak (GB) | time | transfer hidden" for name in MODELS) + " |\n"
            "|---|" + "---|---|---|" * len(MODELS) + "\n")
    rows = {name: [] for name, _ in options}
    folders = {name: os.path.join(arguments.work, name) for name in MODELS}
    for name, (transformer, vae) in MODELS.items():
        folder = folders[name]
        make_model(folder, transformer | layers, vae, text_layers=2 if arguments.tiny else 24)
        for option, plan in options:
            found = estimate(arguments.kino_render, folder, plan)
            hidden = f"{found.get('transfer_hidden', 0) * 100:.0f} %" if plan["offload"] != "none" else ""
            rows[option] += [f"{int(found['peak_device_bytes']) / 1e9:.2f}", f"{found['slowdown']:.2f}", hidden]
    for option, cells in rows.items():
        text += f"| {option} | " + " | ".join(cells) + " |\n"
    text += operations(arguments.kino_render, folders)
    with open(f"{folders['13B']}/request.json", "w", encoding="utf-8") as file:
        json.dump({"prompt": "x " * 200, **SIZE}, file)
    plan = seconds([arguments.kino_render, "plan", "--model", folders["13B"], "--request", f"{folders['13B']}/request.json",
                    "--device", "cuda:0", "--max-device-memory", "80GiB"])
    start = seconds([arguments.kino_render, "--version"])
    text += (f"\nMeasured: `kino-render plan` for 13B at {SIZE['height']}x{SIZE['width']}x{SIZE['num_frames']} takes {plan:.2f} s from "
             f"start to end, every variant of tiles and chunks traced; a `kino-render` that does nothing takes {start:.2f} s.\n")
    provenance.publish(text, arguments.markdown)


if __name__ == "__main__":
    main()
