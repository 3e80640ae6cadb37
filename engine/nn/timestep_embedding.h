// Timestep embeddings of diffusion transformers (diffusers 0.42.1 models/embeddings.py: Timesteps,
// TimestepEmbedding).
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/weights/weight_set.h"

namespace kino::engine {

// Sinusoids, cosines first, without frequency shift. t: [N] float32 -> [N, dim] float32.
at::Tensor SinusoidalTimesteps(const at::Tensor& t, int64_t dim);

// Sinusoids, then Linear, SiLU, Linear. Immutable after construction.
class TimestepEmbedder {
 public:
  // `scope` holds linear_1 [dim, in] and linear_2 [dim, dim]; `in` is the number of sinusoids (256
  // everywhere so far).
  TimestepEmbedder(const WeightScope& scope, int64_t in, int64_t dim);
  // t: [N] float32 -> [N, dim] in `dtype`. The sinusoids are computed in float32 and rounded to
  // `dtype`.
  at::Tensor Forward(const at::Tensor& t, c10::ScalarType dtype) const;

 private:
  int64_t in_;
  LinearWeight linear_1_;
  LinearWeight linear_2_;
};

}  // namespace kino::engine
