"""Stage-by-stage values of a diffusers run, under the names that `kino-render --taps` uses.

tokens.json      {"input_ids": [[...], ...]}: one padded row per text row, the negative prompt first under CFG
text_states.npy  float32 [R, L, D]: the embeddings the transformer gets, same rows; zeros where the encoder was given a
                 mask that leaves them out
denoise_NNN.npy  float32: the pipeline's latents after step NNN, [B, S, C], [B, C, F, H, W] or [B, F, C, H, W] as it keeps
                 them; a second pass counts on
latents.npy      float32 [B, C, F, H, W]: what the VAE decodes, denormalised and with the decode noise mixed in
Of a latent upsampling, in place of the first three:
video_latents.npy  float32 [B, C, F, H, W]: the video's, denormalised
upsampled.npy      float32 [B, C, F, H, W]: what the network makes of them
"""
import contextlib
import itertools
import json
import os

import numpy as np
import torch

from .run import run


def run_with_taps(pipeline, request, folder, taps):
    """Frames of a pipeline, float32 [T, H, W, 3]; the intermediates are written into `taps`."""
    os.makedirs(taps, exist_ok=True)
    decode = pipeline.vae.decode
    upsampler = getattr(pipeline, "latent_upsampler", None)
    encode_prompt = getattr(pipeline, "encode_prompt", None)
    rows, masks = [], []

    def save(name, tensor):
        np.save(os.path.join(taps, name + ".npy"), tensor.detach().float().cpu().numpy())

    def tap_tokens(_, inputs, named):
        rows.append(inputs[0][0].tolist())
        masks.append(named.get("attention_mask"))

    def tap_text(*args, **kwargs):
        rows.clear()
        masks.clear()
        hook = pipeline.text_encoder.register_forward_pre_hook(tap_tokens, with_kwargs=True)
        try:
            result = encode_prompt(*args, **kwargs)
        finally:
            hook.remove()
        # Some give a mask behind each.
        prompt, negative = result if len(result) == 2 else result[::2]
        # encode_prompt takes the prompt first, the transformer gets the negative one first.
        rows.reverse()
        masks.reverse()
        states = prompt if negative is None else torch.cat([negative, prompt])
        if all(mask is not None for mask in masks):
            states = torch.where(torch.cat(masks).bool().unsqueeze(2), states, 0)
        save("text_states", states)
        with open(os.path.join(taps, "tokens.json"), "w", encoding="utf-8") as file:
            json.dump({"input_ids": rows}, file)
        return result

    steps = itertools.count()  # of all passes

    def tap_step(_, step, timestep, tensors):
        save(f"denoise_{next(steps):03d}", tensors["latents"])
        return {}

    def tap_decode(latents, *args, **kwargs):
        save("latents", latents)
        return decode(latents, *args, **kwargs)

    def tap_upsampler(_, inputs, output):
        save("video_latents", inputs[0])
        save("upsampled", output)

    pipeline.vae.decode = tap_decode
    taps_of = {}
    with contextlib.ExitStack() as stack:
        stack.callback(delattr, pipeline.vae, "decode")
        if upsampler is not None:
            stack.callback(upsampler.register_forward_hook(tap_upsampler).remove)
        if encode_prompt is not None:
            pipeline.encode_prompt = tap_text
            stack.callback(delattr, pipeline, "encode_prompt")
            taps_of["callback_on_step_end"] = tap_step
        frames = run(pipeline, request, folder, "np", **taps_of)
    return np.asarray(frames[0], dtype=np.float32)
