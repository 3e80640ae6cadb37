"""Writes an LTX transformer as a GGUF file under its original names, as the published converters do."""
import os

import gguf
import numpy as np
from safetensors.torch import load_file

NAMES = (("proj_in", "patchify_proj"), ("time_embed", "adaln_single"), ("norm_q", "q_norm"), ("norm_k", "k_norm"))
SUPER_BLOCK, SUB_BLOCK = 256, 32


def write_transformer(folder, path, kind):
    """`kind`: the type of the matrices that its blocks divide, as gguf names it."""
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "ltxv")
    for name, tensor in load_file(os.path.join(folder, "diffusion_pytorch_model.safetensors")).items():
        values = tensor.float().numpy()
        for ours, theirs in NAMES:
            name = name.replace(ours, theirs)
        is_matrix = values.ndim == 2 and not name.endswith("scale_shift_table")
        if is_matrix and values.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0:
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
        elif is_matrix:
            writer.add_tensor(name, values.astype(np.float16))
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(values, kind):
    return quantize_q4_k(values) if kind.name == "Q4_K" else gguf.quants.quantize(values, kind)


def quantize_q4_k(values):
    """gguf's library only decodes this type. Each 32 values take the scale and offset of their range, in 6 bits of the
    largest among 256; converters search for better ones."""
    blocks = values.reshape(-1, SUPER_BLOCK // SUB_BLOCK, SUB_BLOCK)
    low = np.minimum(blocks.min(-1), 0)
    step = (blocks.max(-1) - low) / 15
    d, scales = _six_bits(step)
    dmin, offsets = _six_bits(-low)
    scale = (d.astype(np.float32) * scales)[..., None]
    offset = (dmin.astype(np.float32) * offsets)[..., None]
    quants = np.where(scale > 0, np.round((blocks + offset) / np.where(scale > 0, scale, 1)), 0)
    quants = quants.clip(0, 15).astype(np.uint8).reshape(len(blocks), 4, 2, SUB_BLOCK)
    packed = (quants[:, :, 0] | quants[:, :, 1] << 4).reshape(len(blocks), -1)
    # Sub-blocks 4 to 7 keep their upper two bits above the six of 0 to 3.
    upper = np.concatenate([scales[:, :4] | scales[:, 4:] >> 4 << 6, offsets[:, :4] | offsets[:, 4:] >> 4 << 6,
                            scales[:, 4:] & 15 | (offsets[:, 4:] & 15) << 4], axis=1)
    rows = np.concatenate([d.view(np.uint8), dmin.view(np.uint8), upper, packed], axis=1)
    return rows.reshape(*values.shape[:-1], -1)


def _six_bits(numbers):
    """float16 [blocks, 1] and uint8 of `numbers`, whose product is near them."""
    largest = (numbers.max(1, keepdims=True) / 63).astype(np.float16)
    divisor = np.where(largest > 0, largest.astype(np.float32), 1)
    return largest, np.round(numbers / divisor).clip(0, 63).astype(np.uint8)
