// Two-layer perceptrons with the tanh approximation of GELU between them. Immutable after
// construction.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/weights/weight_set.h"

namespace kino::engine {

class GeluMlp {
 public:
  GeluMlp(LinearWeight first, LinearWeight second) : first_(first), second_(second) {}
  // diffusers' FeedForward "gelu-approximate" (models/attention.py): net.0.proj, net.2, inner width
  // 4 * dim.
  static GeluMlp FeedForward(const WeightScope& scope, int64_t dim);
  // diffusers' PixArtAlphaTextProjection (models/embeddings.py): linear_1, linear_2.
  static GeluMlp TextProjection(const WeightScope& scope, int64_t in, int64_t dim);

  // x: [B, L, in] -> [B, L, out] in x's dtype. tokens_at_once > 0: so many of L at a time, so that
  // the inner width is never held for all of them (diffusers' chunk_size).
  at::Tensor Forward(const at::Tensor& x, int64_t tokens_at_once = 0) const;

 private:
  LinearWeight first_;
  LinearWeight second_;
};

}  // namespace kino::engine
