#include "engine/ops/resample_frames.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <vector>

namespace kino::engine {

at::Tensor DoubleNearest(const at::Tensor& x, bool in_time) {
  const int64_t frames = x.size(0), height = x.size(1), width = x.size(2), channels = x.size(3);
  const int64_t alone = in_time ? frames % 2 : frames;
  at::Tensor out =
      at::empty({alone + (frames - alone) * 2, 2 * height, 2 * width, channels}, x.options());
  const auto fill = [&](int64_t first, int64_t count, int64_t repeats) {
    if (count == 0) return;
    out.narrow(0, first, count * repeats)
        .view({count, repeats, height, 2, width, 2, channels})
        .copy_(x.narrow(0, first, count).view({count, 1, height, 1, width, 1, channels}));
  };
  fill(0, alone, 1);
  fill(alone, frames - alone, 2);
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
