// Dequantization on CUDA, into float32, float16 or bfloat16. No torch here, so that nvcc compiles
// little. Launches are asynchronous on `stream`; each product is rounded as in the composed forms.
//
// Not fused with the matmul: a video model's layers see thousands of tokens, so their time is the
// product's, which cuBLAS does best, and decoding (one write and one read of the weight) is some
// hundredths of it; the text encoder's 128 to 512 tokens run once a request. Fusion pays for a
// handful of tokens, as in text generation. No GPU has run these kernels yet.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/core/cuda_element.h"

namespace kino::engine::cuda {

// Scales of 4-bit blocks: `plain`, or codes with scales of their own.
struct BlockScales {
  const float* plain = nullptr;
  const uint8_t* codes = nullptr;
  const float* nested = nullptr;  // one for each `nested_block` codes
  const float* code = nullptr;    // [256]
  const float* offset = nullptr;  // [1]
  int64_t nested_block = 0;
};

// out[i] = code[nibble i] * scale of block i / block, `elements` of them; of two in a byte the
// first is in the high half. code: float32 [16] on the host.
cudaError_t Decode4Bit(Element element, const uint8_t* packed, const BlockScales& scales,
                       const float* code, int64_t block, int64_t elements, void* out,
                       cudaStream_t stream);

// out[r, c] = values[r, c] * scales[r] * factor. values: int8, or float8_e4m3fn if `is_float8`.
cudaError_t DecodeScaledRows(Element element, bool is_float8, const void* values,
                             const float* scales, float factor, int64_t rows, int64_t columns,
                             void* out, cudaStream_t stream);

}  // namespace kino::engine::cuda
