#include "engine/ops/half_rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

namespace kino::engine {

at::Tensor HalfRotary(const at::Tensor& x, int64_t axes, const RotaryTable& table) {
  TORCH_CHECK(x.dim() == 3 && table.cos.dim() == 2 && table.cos.sizes() == table.sin.sizes() &&
                  table.cos.size(0) == x.size(1) && table.cos.size(1) % axes == 0 &&
                  x.size(2) % (2 * table.cos.size(1)) == 0,
              "half rotary: the input is ", x.sizes(), ", the table ", table.cos.sizes(), " of ",
              axes, " axes, expected [B, L, D] and [L, half a head]");
  const int64_t pairs = table.cos.size(1) / axes;
  const at::Tensor halves = x.view({x.size(0), x.size(1), -1, axes, 2, pairs});
  const auto angles = [&](const at::Tensor& of) { return of.view({x.size(1), 1, axes, pairs}); };
  const at::Tensor cos = angles(table.cos), sin = angles(table.sin);
  const at::Tensor first = halves.select(4, 0).to(at::kFloat),
                   second = halves.select(4, 1).to(at::kFloat);
  const at::Tensor out = at::empty_like(halves);
  out.select(4, 0).copy_(first * cos - second * sin);
  out.select(4, 1).copy_(second * cos + first * sin);
  return out.view(x.sizes());
}

}  // namespace kino::engine
