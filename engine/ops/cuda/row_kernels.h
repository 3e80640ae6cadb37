// Fused row kernels on CUDA: one block of threads for each row of [B * L, D], sums in float32, the
// composed forms' rounding points. No torch here, so that nvcc compiles little. Launches are
// asynchronous on `stream`. No GPU has run them yet.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace kino::engine::cuda {

enum class Element { kFloat, kHalf, kBFloat16 };

// At most so many stretches of tokens; callers with more take the composed form.
inline constexpr int kMaxSpans = 8;
struct Spans {
  int count = 0;
  int64_t end[kMaxSpans];  // the stretch i covers tokens from end[i - 1] (or 0) to end[i]
  int64_t row[kMaxSpans];  // its row of the tables
};

// out = norm(x) * (1 + scale) + shift.  x, out: [rows, width]; shift, scale: [table rows, width];
// token = row % tokens. is_layer: subtract the mean (layer norm), else RMS norm.
cudaError_t NormModulate(Element element, bool is_layer, const void* x, const void* shift,
                         const void* scale, void* out, int64_t rows, int64_t tokens, int64_t width,
                         float eps, const Spans& spans, cudaStream_t stream);

// x += y * gate.  x, y: [rows, width]; gate: [table rows, width].
cudaError_t AddGated(Element element, void* x, const void* y, const void* gate, int64_t rows,
                     int64_t tokens, int64_t width, const Spans& spans, cudaStream_t stream);

// out = rotate(rms_norm(x) * weight).  x, out: [rows, width], width even; weight: [width]; cos,
// sin: float32 [tokens, width / 2].
cudaError_t RmsRotary(Element element, const void* x, const void* weight, const float* cos,
                      const float* sin, void* out, int64_t rows, int64_t tokens, int64_t width,
                      float eps, cudaStream_t stream);

}  // namespace kino::engine::cuda
