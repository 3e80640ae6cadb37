// Integer matrix products. Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// a: [M, K] int8, b: [N, K] int8 -> a b^T, [M, N] int32, exact.
at::Tensor Int8MatMul(const at::Tensor& a, const at::Tensor& b);

// The same by float32 products of stretches of K short enough that every sum is exact.
at::Tensor Int8MatMulComposed(const at::Tensor& a, const at::Tensor& b);

// Tokens that a quantized layer takes at a time: bounds its int32 and float32 workspace.
inline constexpr int64_t kInt8RowsPerChunk = 1024;
// The same for layers that need nothing of other tokens. On a GPU more: enough to fill it, and most
// clips in one piece.
int64_t DynamicRowsPerChunk(const at::Tensor& x);

}  // namespace kino::engine
