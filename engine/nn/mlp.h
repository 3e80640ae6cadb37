// Two-layer perceptrons. Immutable after construction.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "engine/weights/weight_set.h"

namespace kino::engine {

class Mlp {
 public:
  // What is between the layers.
  enum class Activation {
    kGeluTanh,   // GELU in the tanh approximation
    kGelu,       // GELU, exact
    kQuickGelu,  // x * sigmoid(1.702 x) (arXiv 1606.08415, section 2)
    kSilu,
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
  // `activation`: kGeluTanh or kSilu.
  static Mlp TextProjection(const WeightScope& scope, int64_t in, int64_t dim,
                            Activation activation = Activation::kGeluTanh);
  // Two layers by their names, with nothing gated between them.
  struct Widths {
    int64_t in = 0, inner = 0, out = 0;
  };
  static Mlp TwoLayers(const WeightScope& scope, std::string_view first, std::string_view second,
                       const Widths& widths, Activation activation, bool bias = true);

  // x: [B, L, in], or [B, in] with tokens_at_once 0 -> the same of `out` in x's dtype.
  // tokens_at_once > 0: so many of L at a time, so that the inner width is never held for all of
  // them (diffusers' chunk_size).
  at::Tensor Forward(const at::Tensor& x, int64_t tokens_at_once = 0) const;

 private:
  Mlp(LinearWeight first, Activation activation, LinearWeight second)
      : first_(first), activation_(activation), second_(second) {}
  at::Tensor Activated(at::Tensor hidden) const;

  LinearWeight first_;
  Activation activation_;
  LinearWeight second_;
};

}  // namespace kino::engine
