// Decoding of GGUF blocks on CUDA: the arithmetic of gguf_blocks.h, so the CPU's results bit for
// bit. No torch here, so that nvcc compiles little. Launches are asynchronous on `stream`. No GPU
// has run them yet.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/core/cuda_element.h"
#include "engine/core/ggml_type.h"

namespace kino::engine::cuda {

// Thread blocks of a launch at most; their threads stride over what is left.
inline constexpr int64_t kGgufMaxGrid = 1 << 20;

// `count` blocks of `type` to their elements, in order; any alignment.
cudaError_t DecodeGguf(GgmlType type, const uint8_t* blocks, int64_t count, Element element,
                       void* out, cudaStream_t stream, int64_t max_grid = kGgufMaxGrid);

}  // namespace kino::engine::cuda
