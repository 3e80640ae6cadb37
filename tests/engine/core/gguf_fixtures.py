"""A GGUF file of gguf's own writer with a tensor of every type.

usage: gguf_fixtures.py FOLDER SEED. Writes FOLDER/all.gguf, FOLDER/index (a line for each tensor:
name, type, shape as torch counts it) and FOLDER/NAME.bin with each tensor's bytes.
"""

import sys

import gguf
import numpy as np

TYPES = [
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "IQ4_NL", "IQ4_XS",
]  # fmt: skip


def main(folder, seed):
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(f"{folder}/all.gguf", "ltxv")
    writer.add_string("note", "größer")
    writer.add_uint8("small", 200)
    writer.add_int32("negative", -7)
    writer.add_uint64("large", 1 << 40)
    writer.add_float32("third", 1 / 3)
    writer.add_bool("yes", True)
    writer.add_array("names", ["a", "", "long" * 50])
    writer.add_array("numbers", [1, 2, 3])
    lines = []

    def add(name, kind, shape):
        elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        if kind in ("F32", "F16"):
            data = rng.normal(0, 1, shape).astype(np.float32 if kind == "F32" else np.float16)
            writer.add_tensor(name, data)
        else:
            bytes_shape = (*shape[:-1], shape[-1] // elements * size)
            data = rng.integers(0, 256, bytes_shape, dtype=np.uint8)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
        lines.append(" ".join([name, kind, *map(str, shape)]))
        with open(f"{folder}/{name}.bin", "wb") as file:
            file.write(data.tobytes())

    for kind in TYPES:
        add(f"matrix.{kind}", kind, (3, 512))
        add(f"row.{kind}", kind, (256,))
    add("video", "F16", (2, 3, 1, 3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open(f"{folder}/index", "w") as file:
        file.write("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
