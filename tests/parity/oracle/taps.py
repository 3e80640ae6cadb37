"""Stage-by-stage values of a diffusers run, under the names that `kino-render --taps` uses.

tokens.json      {"input_ids": [[...], ...]}: one padded row per text row, the negative prompt first under CFG; where there
                 are two encoders, the first one's rows before the second's, each as the encoder gets it
text_states.npy  float32 [R, L, D]: the embeddings the transformer gets, same rows; zeros where a mask leaves them out, and
                 behind a row that is shorter than another
pooled_states.npy  float32 [R, D]: of the second encoder, where there are two
image_states.npy  float32 [1, L, D]: of FramePack's image encoder
denoise_NNN.npy  float32: the pipeline's latents after step NNN, [B, S, C], [B, C, F, H, W] or [B, F, C, H, W] as it keeps
                 them; a second pass counts on
latents.npy      float32 [B, C, F, H, W]: what the VAE decodes, denormalised and with the decode noise mixed in; latents_NNN.npy
                 where FramePack decodes after each section
Of a latent upsampling, in place of the first three:
video_latents.npy  float32 [B, C, F, H, W]: the video's, denormalised
upsampled.npy      float32 [B, C, F, H, W]: what the network makes of them
"""
import contextlib
import inspect
import itertools
import json
import os

import numpy as np
import torch

from .run import run


def _save_text(taps, save, ids, rows):
    """rows: a tensor [1, L, D] each."""
    longest = max(row.shape[1] for row in rows)
    save("text_states", torch.cat([torch.nn.functional.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows]))
    with open(os.path.join(taps, "tokens.json"), "w", encoding="utf-8") as file:
        json.dump({"input_ids": ids}, file)


@contextlib.contextmanager
def _tap_two_encoders(pipeline, taps, save):
    """HunyuanVideo's pipelines encode a prompt with both encoders at a time, the negative one after the other."""
    encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
    encode_prompt = pipeline.encode_prompt
    ids = [[] for _ in encoders]
    states, pooled = [], []

    def tap_text(*args, **kwargs):
        result = encode_prompt(*args, **kwargs)
        states.append(torch.where(result[2].bool().unsqueeze(2), result[0], 0))
        pooled.append(result[1])
        return result

    with contextlib.ExitStack() as stack:
        for rows, encoder in zip(ids, encoders):
            def tap_tokens(_, inputs, named, rows=rows):
                rows.append((inputs[0] if inputs else named["input_ids"])[0].tolist())
            stack.callback(encoder.register_forward_pre_hook(tap_tokens, with_kwargs=True).remove)
        image_encoder = getattr(pipeline, "image_encoder", None)
        if image_encoder is not None:
            images = []
            stack.callback(image_encoder.register_forward_hook(
                lambda _, inputs, output: images.append(output.last_hidden_state)).remove)
        pipeline.encode_prompt = tap_text
        stack.callback(delattr, pipeline, "encode_prompt")
        yield
    _save_text(taps, save, [row for rows in ids for row in reversed(rows)], states[::-1])
    save("pooled_states", torch.cat(pooled[::-1]))
    if image_encoder is not None:  # nothing looks at the last image's
        save("image_states", images[0])


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
    is_in_sections = "latent_window_size" in inspect.signature(pipeline.__call__).parameters
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
        _save_text(taps, save, rows, [states])
        return result

    steps = itertools.count()  # of all passes
    decodes = itertools.count()

    def tap_step(_, step, timestep, tensors):
        save(f"denoise_{next(steps):03d}", tensors["latents"])
        return {}

    def tap_decode(latents, *args, **kwargs):
        save(f"latents_{next(decodes):03d}" if is_in_sections else "latents", latents)
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
        if getattr(pipeline, "text_encoder_2", None) is not None:
            stack.enter_context(_tap_two_encoders(pipeline, taps, save))
            taps_of["callback_on_step_end"] = tap_step
        elif encode_prompt is not None:
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
    _save_text(taps, save, ids, states)
    return np.asarray(frames[0], dtype=np.float32)
