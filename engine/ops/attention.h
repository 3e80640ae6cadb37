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
  // A query attends to the keys before it and its own, of which there are as many as queries; by no
  // mask, and so without a bias.
  bool causal = false;
};

// q: [B, L, D], k, v: [B, M, D] with D = heads * K -> [B, L, D]. Keys and values may be of fewer
// heads, [B, M, G * K] where G divides heads: heads / G queries in a row share one (GQA, arXiv
// 2305.13245). bias: additive, broadcast to [B, heads, L, M], or undefined. The weights of all
// queries for all keys are held nowhere: where torch has no fused kernel for such tensors, few
// queries go at a time.
at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                     const AttentionContext& context = {}, const at::Tensor& bias = {});

// The same where each row of the batch attends to keys of its own number. q: [B, L, D]; k, v: of
// each row, [1, M, D].
at::Tensor AttentionByRow(const at::Tensor& q, const std::vector<at::Tensor>& k,
                          const std::vector<at::Tensor>& v, int64_t heads);

}  // namespace kino::engine
