#include "engine/nn/modulation.h"

#include <ATen/ops/stack.h>

namespace kino::engine {

at::Tensor ByPart(const at::Tensor& modulation, int64_t parts) {
  return modulation.unflatten(2, {parts, -1}).transpose(1, 2).contiguous();
}

at::Tensor OfStep(const at::Tensor& modulation, int step, bool has_apart) {
  if (!has_apart) return modulation[step].unsqueeze(2);
  return at::stack({modulation[step], modulation[-1]}, 2);
}

}  // namespace kino::engine
