// Two-layer perceptrons. Immutable after construction.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/weights/weight_set.h"

namespace kino::engine {

class Mlp {
 public:
  // What is between the layers.
  enum class Activation {
    kGeluTanh,         // GELU in the tanh approximation
    kSwiGlu,           // the first layer gives values, then gates
    kSwiGluGateFirst,  // gates, then values: files in Genmo's own layout
  };
  struct Options {
    Activation activation = Activation::kGeluTanh;
    int64_t inner = 0;  // width between the layers; 0: 4 * dim
    bool bias = true;
  };

  // diffusers' FeedForward (models/attention.py): net.0.proj, net.2.
  static Mlp FeedForward(const WeightScope& scope, int64_t dim, const Options& options);
  // diffusers' PixArtAlphaTextProjection (models/embeddings.py): linear_1, linear_2.
  static Mlp TextProjection(const WeightScope& scope, int64_t in, int64_t dim);

  // x: [B, L, in] -> [B, L, out] in x's dtype. tokens_at_once > 0: so many of L at a time, so that
  // the inner width is never held for all of them (diffusers' chunk_size).
  at::Tensor Forward(const at::Tensor& x, int64_t tokens_at_once = 0) const;

 private:
  Mlp(LinearWeight first, Activation activation, LinearWeight second)
      : first_(first), activation_(activation), second_(second) {}

  LinearWeight first_;
  Activation activation_;
  LinearWeight second_;
};

}  // namespace kino::engine
