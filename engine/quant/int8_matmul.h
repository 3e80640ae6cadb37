// Integer matrix products. Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/describe/weight_plan.h"

namespace kino::engine {

// a: [M, K] int8, b: [N, K] int8 -> a b^T, [M, N] int32, exact.
at::Tensor Int8MatMul(const at::Tensor& a, const at::Tensor& b);

// The same by float32 products of stretches of K short enough that every sum is exact.
at::Tensor Int8MatMulComposed(const at::Tensor& a, const at::Tensor& b);

// Tokens that a layer of a dynamic scheme takes at a time (describe/weight_plan.h).
int64_t DynamicRowsPerChunk(const at::Tensor& x);

}  // namespace kino::engine
