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

    def save(name, tensor):
        np.save(os.path.join(taps, name + ".npy"), tensor.detach().float().cpu().numpy())

    if hasattr(pipeline, "vae_decode_tiled"):
        return _run_long_with_taps(pipeline, request, folder, taps, save)
    decode = pipeline.vae.decode
    upsampler = getattr(pipeline, "latent_upsampler", None)
    encode_prompt = getattr(pipeline, "encode_prompt", None)
    rows, masks = [], []

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


class _Seen(Exception):
    """What was to be seen has been."""


def _run_long_with_taps(pipeline, request, folder, taps, save):
    """LTXI2VLongMultiPromptPipeline encodes a prompt in each window and decodes in tiles: text rows are the negative prompt
    and then each segment that a window has, steps are numbered through all windows (their own latents, and behind these
    those that they only look at), and latents.npy is what the tiles are cut from, the doubled last frame included."""
    encode_prompt, decode_tiled = pipeline.encode_prompt, pipeline.vae_decode_tiled
    segments = request["prompt"].split("|")
    ids, states, steps = [], [], []

    def tap_text(*args, **kwargs):
        tokens = []
        hook = pipeline.text_encoder.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0][0].tolist()))
        try:
            result = encode_prompt(*args, **kwargs)
        finally:
            hook.remove()
        prompt, _, negative, _ = result
        if not ids and negative is not None:
            ids.append(tokens[1])
            states.append(negative)
        if len(ids) < len(segments) + (negative is not None):
            ids.append(tokens[0])
            states.append(prompt)
        return result

    def tap_step(_, step, timestep, tensors):
        save(f"denoise_{len(steps):03d}", tensors["latents_packed"])
        steps.append(step)
        return {}

    def tap_decode(latents, *_, **__):
        save("latents", latents)
        raise _Seen

    def tap_tiles(latents, *, generator, **options):
        decode = pipeline.vae.decode
        pipeline.vae.decode = tap_decode
        try:
            decode_tiled(latents, generator=generator.clone_state(), **{**options, "horizontal_tiles": 1, "vertical_tiles": 1})
        except _Seen:
            pass
        finally:
            pipeline.vae.decode = decode
        return decode_tiled(latents, generator=generator, **options)

    pipeline.encode_prompt, pipeline.vae_decode_tiled = tap_text, tap_tiles
    try:
        frames = run(pipeline, request, folder, "np", callback_on_step_end=tap_step,
                     callback_on_step_end_tensor_inputs=["latents_packed"])
    finally:
        del pipeline.encode_prompt, pipeline.vae_decode_tiled
    save("text_states", torch.cat(states))
    with open(os.path.join(taps, "tokens.json"), "w", encoding="utf-8") as file:
        json.dump({"input_ids": ids}, file)
    return np.asarray(frames[0], dtype=np.float32)
