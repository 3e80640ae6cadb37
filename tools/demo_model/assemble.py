"""Puts the trained parts together as a diffusers folder, in bfloat16, without any path of this machine inside."""
import json
import os
import shutil

import common
import tokenizer
import train_transformer
import train_vae


def assemble(root, out):
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline
    workspace = common.Workspace(root)
    encoder, transformer = train_transformer.load(workspace)
    pipeline = LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=True, base_shift=.95,
            max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096, shift_terminal=.1),
        vae=train_vae.load(workspace), text_encoder=encoder, tokenizer=tokenizer.load(workspace),
        transformer=transformer).to(torch.bfloat16)
    pipeline.save_pretrained(out)
    shutil.copy(os.path.join(workspace.tokenizer, "spiece.model"), os.path.join(out, "tokenizer"))
    _forget_paths(out)
    size = sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(out) for n in names)
    print(f"{out}: {size / 1e6:.1f} MB", flush=True)


def _forget_paths(out):
    for folder, _, names in os.walk(out):
        for name in names:
            if not name.endswith(".json") or name == "tokenizer.json":
                continue
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            for key in ("_name_or_path", "name_or_path"):
                content.pop(key, None)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
