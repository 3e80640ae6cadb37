// Fused row kernels on CUDA: one block of threads for each row of [B * L, D], sums in float32, the
// composed forms' rounding points. No torch here, so that nvcc compiles little. Launches are
// asynchronous on `stream`. No GPU has run them yet.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/core/cuda_element.h"

namespace kino::engine::cuda {

// At most so many stretches of tokens; callers with more take the composed form.
inline constexpr int kMaxSpans = 8;
struct Spans {
  int count = 0;
  int64_t end[kMaxSpans];  // the stretch i covers tokens from end[i - 1] (or 0) to end[i]
  int64_t row[kMaxSpans];  // its row of the tables
};

// The rows of [B, L, D] and the tables of parameters they use.
struct Rows {
  int64_t rows = 0;        // B * L
  int64_t tokens = 0;      // L
  int64_t width = 0;       // D
  int64_t batch_rows = 0;  // rows of a table for each row of the batch; 0: one table for all
  Spans spans;
};

// out = norm(x) * (1 + scale) + shift; no shift: nullptr.  x, out: [rows, width]; shift, scale:
// [table rows, width]. is_layer: subtract the mean (layer norm), else RMS norm. rounds_once: only
// `out` is rounded, not the norm, the factor and the product. weight, bias: [width], of the norm
// itself; nullptr: none.
cudaError_t NormModulate(Element element, bool is_layer, bool rounds_once, const void* x,
                         const void* weight, const void* bias, const void* shift, const void* scale,
                         void* out, const Rows& rows, float eps, cudaStream_t stream);

// x += y * gate.  x, y: [rows, width]; gate: [table rows, width].
cudaError_t AddGated(Element element, void* x, const void* y, const void* gate, const Rows& rows,
                     cudaStream_t stream);

// x += rms_norm(y) * gate, the product rounded once.
cudaError_t AddNormGated(Element element, void* x, const void* y, const void* gate,
                         const Rows& rows, float eps, cudaStream_t stream);

// out = one half of a row * SiLU(the other), the SiLU rounded; gate_first: the first half is the
// gate.  x: [rows, 2 * half], out: [rows, half].
cudaError_t SwiGlu(Element element, const void* x, void* out, int64_t rows, int64_t half,
                   bool gate_first, cudaStream_t stream);

// Of NormRotary: rows of [B, L, D] that follow each other within a row of the batch.
struct RotaryRows {
  int64_t rows = 0;                                // B * L
  int64_t tokens = 0;                              // L
  int64_t width = 0;                               // D
  int64_t head = 0;                                // so many numbers are normed together
  int64_t first = 0;                               // tokens before it are not turned
  int64_t angles = 0;                              // of a token in the table: width / 2 or head / 2
  int64_t batch_stride = 0, out_batch_stride = 0;  // elements from one row of the batch to the next
};

// out = rotate(rms_norm(x) * weight); cos nullptr: not turned.  weight: [head], head even; bias
// [head] not nullptr: a layer norm, and the bias added; cos, sin: float32 [tokens - first, angles].
// out may be x.
cudaError_t NormRotary(Element element, const void* x, const void* weight, const void* bias,
                       const float* cos, const float* sin, void* out, const RotaryRows& rows,
                       float eps, cudaStream_t stream);

}  // namespace kino::engine::cuda
