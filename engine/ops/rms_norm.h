// Root-mean-square norm over the last dimension (torch.nn.RMSNorm). Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// x / sqrt(mean(x^2) + eps) * weight.  x: [..., D], weight: [D] in x's dtype -> x's shape and
// dtype.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace kino::engine
