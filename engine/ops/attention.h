// Scaled dot-product attention. One door, so that a backend, a process group or a sparse mask is
// chosen in one place.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace kino::engine {

// What attention needs to know beside its inputs. A backend choice and a process group will live
// here.
struct AttentionContext {
  // 0: 1 / sqrt(K).
  double scale = 0;
};

// q: [B, L, D], k, v: [B, M, D] with D = heads * K -> [B, L, D]. bias: additive, broadcast to [B,
// heads, L, M], or undefined.
at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                     const AttentionContext& context = {}, const at::Tensor& bias = {});

// The same where each row of the batch attends to keys of its own number. q: [B, L, D]; k, v: of
// each row, [1, M, D].
at::Tensor AttentionByRow(const at::Tensor& q, const std::vector<at::Tensor>& k,
                          const std::vector<at::Tensor>& v, int64_t heads);

}  // namespace kino::engine
