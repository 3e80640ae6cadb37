"""Writes what transformers' image processors make of pictures: image_processor_fixtures.py OUT_FOLDER SEED

OUT_FOLDER/cases.json: [{"name", "config", "source", "unit", "expected"}]: a preprocessor_config.json and the .npy files that
went in (bytes [H, W, 3], or float32 [1, 3, H, W] in 0..1 and do_rescale=False) and came out.
"""
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

CLASSES = {"CLIPImageProcessor": CLIPImageProcessorPil, "SiglipImageProcessor": SiglipImageProcessorPil}
CONFIGS = {
    "clip": ("CLIPImageProcessor", dict(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})),
    "clip_defaults": ("CLIPImageProcessor", {}),
    "clip_numbers": ("CLIPImageProcessor", dict(size=40, crop_size=32)),
    "clip_odd_crop": ("CLIPImageProcessor", dict(size={"shortest_edge": 33}, crop_size={"height": 20, "width": 25})),
    # The crop is larger than what is resized, in one direction or in both.
    "clip_padded": ("CLIPImageProcessor", dict(size={"shortest_edge": 21}, crop_size={"height": 40, "width": 24})),
    "clip_all_padded": ("CLIPImageProcessor", dict(size={"height": 9, "width": 12}, crop_size={"height": 20, "width": 17})),
    "clip_no_crop": ("CLIPImageProcessor", dict(size={"shortest_edge": 31}, do_center_crop=False)),
    "clip_exact": ("CLIPImageProcessor", dict(size={"height": 30, "width": 44}, do_center_crop=False, rescale_factor=1 / 127,
                                              image_mean=[0.1, 0.2, 0.7], image_std=[0.3, 1.5, 2.0])),
    "clip_no_rescale": ("CLIPImageProcessor", dict(size=20, crop_size=20, do_rescale=False)),
    "clip_no_normalize": ("CLIPImageProcessor", dict(size=20, crop_size=20, do_normalize=False)),
    "siglip": ("SiglipImageProcessor", dict(size={"height": 38, "width": 38})),
    "siglip_wide": ("SiglipImageProcessor", dict(size={"height": 24, "width": 50})),
    "siglip_defaults": ("SiglipImageProcessor", {}),
    "siglip_cropped": ("SiglipImageProcessor", dict(size={"height": 24, "width": 50}, do_center_crop=True, crop_size=20)),
}
SIZES = [(32, 48), (48, 32), (61, 97), (97, 61), (48, 48), (7, 90), (1, 1), (150, 24)]  # height, width


def picture(rng, height, width):
    """Smooth with noise on it, over the whole range."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 9 + c) * np.cos(y / (7 + c)) for c in range(3)], axis=-1) * 110 + 127
    return np.clip(waves + rng.normal(0, 30, waves.shape), 0, 255).astype(np.uint8)


def main():
    out, rng = sys.argv[1], np.random.default_rng(int(sys.argv[2]))
    cases = []

    def add(name, config, source, unit, expected):
        for kind, array in (("source", source), ("expected", expected)):
            np.save(f"{out}/{len(cases)}_{kind}.npy", np.ascontiguousarray(array))
        cases.append({"name": name, "config": config, "unit": unit, "source": f"{len(cases)}_source.npy",
                      "expected": f"{len(cases)}_expected.npy"})

    for name, (kind, values) in CONFIGS.items():
        processor = CLASSES[kind](**values)
        # As save_pretrained writes it, and as files have it that say only what is not the default.
        whole = json.loads(processor.to_json_string())
        assert whole["image_processor_type"] == kind
        short = {"feature_extractor_type": kind} | values
        for i, (height, width) in enumerate(SIZES):
            source = picture(rng, height, width)
            expected = processor(Image.fromarray(source), return_tensors="pt").pixel_values
            add(f"{name} {height}x{width}", whole if i % 2 == 0 else short, source, False, expected.float().numpy())
            if name == "clip_no_rescale":
                continue
            pixels = rng.random((1, 3, height, width), dtype=np.float32)
            # Bytes as diffusers brings them to -1..1 and back: their values times 255 lie on both sides of whole numbers.
            if i % 2 == 0:
                pixels = ((2.0 * (torch.from_numpy(source).permute(2, 0, 1)[None].float() / 255.0) - 1.0 + 1) / 2.0).numpy()
            expected = processor(images=torch.from_numpy(pixels), return_tensors="pt", do_rescale=False).pixel_values
            add(f"{name} unit {height}x{width}", whole, pixels, True, expected.float().numpy())
    for name in ("siglip", "clip"):
        kind, values = CONFIGS[name]
        processor = CLASSES[kind](**values)
        whole = json.loads(processor.to_json_string())
        black = np.zeros((30, 40, 3), np.uint8)
        add(f"{name} black", whole, black, False, processor(Image.fromarray(black), return_tensors="pt").pixel_values.numpy())
        for kind, pixels in (("zeros", np.zeros((1, 3, 20, 30))), ("ones", np.ones((1, 3, 20, 30))),
                             ("zeros and ones", rng.integers(0, 2, (1, 3, 20, 30))), ("halves", np.full((1, 3, 20, 30), 0.5)),
                             # Close enough to whole numbers to be taken for bytes, which a resize shows.
                             ("tiny and ones", np.where(rng.integers(0, 2, (1, 3, 20, 30)) == 1, 1.0, 1e-9)),
                             ("tiny", np.full((1, 3, 20, 30), 1e-9)), ("small", np.full((1, 3, 20, 30), 2e-8))):
            pixels = pixels.astype(np.float32)
            expected = processor(images=torch.from_numpy(pixels), return_tensors="pt", do_rescale=False).pixel_values
            add(f"{name} {kind}", whole, pixels, True, expected.float().numpy())
    with open(f"{out}/cases.json", "w", encoding="utf-8") as file:
        json.dump(cases, file)


main()
