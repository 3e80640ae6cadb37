// The product every linear layer makes. Thread-safe; shares torch's intra-op threads.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// x W^T + b. x: [..., in], weight: [out, in] of x's dtype, bias: [out] or undefined -> [..., out].
// bfloat16 and float16 on a CPU without instructions for them are computed in float32 and rounded
// once.
at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// Such a product or convolution of `x` is computed in float32.
bool ComputesInFloat(const at::Tensor& x);

}  // namespace kino::engine
