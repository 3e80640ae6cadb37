// The feed-forward of a block that runs it beside attention: one layer takes what attention saw and
// the activated inner width behind it (diffusers 0.42.1 HunyuanVideoSingleTransformerBlock,
// FluxSingleTransformerBlock). Immutable after construction.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/weights/weight_set.h"

namespace kino::engine {

class ParallelMlp {
 public:
  // `scope` holds proj_mlp [inner, dim] and proj_out [dim, dim + inner].
  ParallelMlp(const WeightScope& scope, int64_t dim, int64_t inner);

  // proj_out(attended, GELU(proj_mlp(normed))).  attended, normed: [1, L, dim], let go of as soon
  // as they are used -> the same. tokens_at_once > 0: so many of L at a time, so that the inner
  // width is never held for all of them.
  at::Tensor Forward(at::Tensor attended, at::Tensor normed, int64_t tokens_at_once = 0) const;

 private:
  int64_t dim_, inner_;
  LinearWeight proj_mlp_, proj_out_;
};

}  // namespace kino::engine
