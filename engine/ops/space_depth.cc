#include "engine/ops/space_depth.h"

namespace kino::engine {

at::Tensor DepthToSpace(const at::Tensor& x, const Stride3d& stride) {
  const int64_t frames = x.size(0), height = x.size(1), width = x.size(2),
                channels = x.size(3) / stride.product();
  return x.view({frames, height, width, channels, stride.t, stride.h, stride.w})
      .permute({0, 4, 1, 5, 2, 6, 3})
      .contiguous()
      .view({frames * stride.t, height * stride.h, width * stride.w, channels});
}

at::Tensor SpaceToDepth(const at::Tensor& x, const Stride3d& stride) {
  const int64_t frames = x.size(0) / stride.t, height = x.size(1) / stride.h,
                width = x.size(2) / stride.w;
  return x.view({frames, stride.t, height, stride.h, width, stride.w, x.size(3)})
      .permute({0, 2, 4, 6, 1, 3, 5})
      .contiguous()
      .view({frames, height, width, x.size(3) * stride.product()});
}

}  // namespace kino::engine
