#include "engine/ops/rms_norm.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/rms_norm.h>

#include "engine/core/trace.h"

namespace kino::engine {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  // On a GPU torch has one kernel for it; on a CPU it composes it, as on meta tensors.
  if (x.is_meta() && RunsOnGpu(x)) return at::empty_like(x);
  return at::rms_norm(x, {x.size(-1)}, weight, eps);
}

}  // namespace kino::engine
