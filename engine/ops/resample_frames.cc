#include "engine/ops/resample_frames.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <vector>

namespace kino::engine {

void DoubleNearestInto(const at::Tensor& x, int64_t times, const at::Tensor& out) {
  const int64_t frames = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  out.view({frames, times, height, 2, width, 2, channels})
      .copy_(x.view({frames, 1, height, 1, width, 1, channels}));
}

at::Tensor DoubleNearest(const at::Tensor& x, bool in_time) {
  const int64_t frames = x.size(0), alone = in_time ? frames % 2 : frames, others = frames - alone;
  at::Tensor out =
      at::empty({alone + others * 2, 2 * x.size(1), 2 * x.size(2), x.size(3)}, x.options());
  if (alone > 0) DoubleNearestInto(x.narrow(0, 0, alone), 1, out.narrow(0, 0, alone));
  if (others > 0)
    DoubleNearestInto(x.narrow(0, alone, others), 2, out.narrow(0, alone, others * 2));
  return out;
}

at::Tensor MeanOfFramePairs(const at::Tensor& x) {
  const int64_t alone = x.size(0) % 2, pairs = x.size(0) / 2;
  std::vector<int64_t> shape = x.sizes().vec();
  shape[0] = alone + pairs;
  at::Tensor out = at::empty(shape, x.options());
  out.narrow(0, 0, alone).copy_(x.narrow(0, 0, alone));
  const at::Tensor of_pair = x.narrow(0, alone, 2 * pairs).unflatten(0, {pairs, 2});
  out.narrow(0, alone, pairs).copy_((of_pair.select(1, 0) + of_pair.select(1, 1)).div_(2.0));
  return out;
}

}  // namespace kino::engine
