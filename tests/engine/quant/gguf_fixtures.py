"""Blocks of every GGUF type with what gguf and diffusers make of them.

usage: gguf_fixtures.py FOLDER SEED. Writes FOLDER/gguf.safetensors with, for each type NAME,
  NAME.size     [2]  elements and bytes of a block (gguf.GGML_QUANT_SIZES)
  NAME.blocks   uint8 [rows, bytes per row]: random blocks, every bit of them used
  NAME.values   float32 [rows, columns]: gguf.quants.dequantize
  NAME.y        float32 [tokens, rows]: diffusers' GGUFLinear of those blocks, computing in float32
and for the types that gguf quantizes to
  NAME.encoded  uint8: gguf.quants.quantize of `plain`
with plain, float32 [rows, columns], and x, float32 [tokens, columns], for all.
"""

import sys

import gguf
import numpy as np
import torch
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
from safetensors.torch import save_file

# Where a block keeps its half-precision scales; anything else in a block may be any byte.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}
ENCODED = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
# Enough for several tasks of the parallel loop.
ROWS, COLUMNS, TOKENS = 37, 2048, 3


def random_blocks(rng, name):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    count = ROWS * COLUMNS // elements
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES[name]:
        halves = rng.normal(0, 0.02, count).astype(np.float16)
        halves[:4] = [0, -0.0, 6e-8, -60.0]  # zeros, the smallest subnormal, a large one
        blocks[:, at : at + 2] = halves.view(np.uint8).reshape(count, 2)
    return blocks.reshape(ROWS, -1)


def plain_weights(rng):
    plain = rng.normal(0, 0.05, (ROWS, COLUMNS)).astype(np.float32)
    plain[0, :32] = 0
    plain[0, 32:64] = 0.25  # no spread
    plain[0, 64:96] = -np.abs(plain[0, 64:96])
    plain[0, 96:128] = np.arange(32) - 15.5  # halves
    plain[0, 128:160] = np.where(np.arange(32) % 2 == 0, 1, -1)  # two of largest magnitude
    plain[0, 160:192] *= 1e-6  # scales that are subnormal halves
    plain[0, 192:224] *= 1e5
    return plain


def main(folder, seed):
    rng = np.random.default_rng(seed)
    plain = plain_weights(rng)
    x = torch.from_numpy(rng.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32))
    out = {"plain": torch.from_numpy(plain), "x": x}
    for name in HALVES:
        kind = gguf.GGMLQuantizationType[name]
        blocks = random_blocks(rng, name)
        out[name + ".size"] = torch.tensor(gguf.GGML_QUANT_SIZES[kind])
        out[name + ".blocks"] = torch.from_numpy(blocks)
        out[name + ".values"] = torch.from_numpy(gguf.quants.dequantize(blocks, kind).copy())
        layer = GGUFLinear(COLUMNS, ROWS, bias=False, compute_dtype=torch.float32)
        layer.weight = GGUFParameter(torch.from_numpy(blocks), quant_type=kind)
        with torch.no_grad():
            y = layer(x)
        out[name + ".y"] = (y.as_tensor() if hasattr(y, "as_tensor") else y).contiguous()
        if name in ENCODED:
            out[name + ".encoded"] = torch.from_numpy(gguf.quants.quantize(plain, kind).copy())
    save_file(out, f"{folder}/gguf.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
