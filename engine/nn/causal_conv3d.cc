#include "engine/nn/causal_conv3d.h"

#include <ATen/ops/empty.h>

#include <utility>

#include "engine/ops/conv3d.h"

namespace kino::engine {

CausalConv3d::CausalConv3d(const WeightScope& scope, const CausalConv3dOptions& options)
    : options_(options),
      weight_(scope.Get("weight",
                        {options.out_channels, options.in_channels, kKernel, kKernel, kKernel},
                        LayerKind::kConvolution)),
      bias_(scope.Get("bias", {options.out_channels}, LayerKind::kConvolution)) {}

at::Tensor CausalConv3d::Window::Inner(int64_t first, int64_t count) const {
  const at::Tensor frames = buffer_.narrow(0, first, count);
  if (border_ == 0) return frames;
  return frames.narrow(1, border_, frames.size(1) - 2 * border_)
      .narrow(2, border_, frames.size(2) - 2 * border_);
}

CausalConv3d::Window CausalConv3d::OpenBehind(int64_t known, at::IntArrayRef fresh_shape,
                                              const at::TensorOptions& options, bool last) const {
  TORCH_CHECK(known > 0 || fresh_shape[0] > 0, "a video without frames");
  Window window;
  window.border_ = options_.repeats_edges ? kKernel / 2 : 0;
  window.has_known_ = known > 0;
  window.lead_ = known > 0 ? known : (options_.causal ? kKernel - 1 : kKernel / 2);
  window.fresh_ = fresh_shape[0];
  const int64_t trail = last && !options_.causal ? kKernel / 2 : 0, border = 2 * window.border_;
  window.buffer_ = at::empty({window.lead_ + window.fresh_ + trail, fresh_shape[1] + border,
                              fresh_shape[2] + border, fresh_shape[3]},
                             options);
  return window;
}

CausalConv3d::Window CausalConv3d::Open(State& state, at::IntArrayRef fresh_shape,
                                        const at::TensorOptions& options, bool last) const {
  const int64_t known = state.tail.defined() ? state.tail.size(0) : 0;
  Window window = OpenBehind(known, fresh_shape, options, last);
  // With their border, if they have one.
  if (known > 0) window.buffer_.narrow(0, 0, known).copy_(state.tail);
  state.tail.reset();
  return window;
}

void CausalConv3d::RepeatEdges(Window& window) {
  const at::Tensor& buffer = window.buffer_;
  const int64_t end = window.lead_ + window.fresh_, length = buffer.size(0);
  if (window.border_ > 0) {
    const int64_t from = window.has_known_ ? 0 : window.lead_;
    const at::Tensor frames = buffer.narrow(0, from, end - from);
    const int64_t bottom = frames.size(1) - 1, right = frames.size(2) - 1;
    // Columns first: the rows that are repeated then hold the corners.
    const at::Tensor rows = frames.narrow(1, 1, bottom - 1);
    rows.select(2, 0).copy_(rows.select(2, 1));
    rows.select(2, right).copy_(rows.select(2, right - 1));
    frames.select(1, 0).copy_(frames.select(1, 1));
    frames.select(1, bottom).copy_(frames.select(1, bottom - 1));
  }
  if (!window.has_known_)
    buffer.narrow(0, 0, window.lead_).copy_(buffer.narrow(0, window.lead_, 1));
  if (length > end) buffer.narrow(0, end, length - end).copy_(buffer.narrow(0, end - 1, 1));
}

at::Tensor CausalConv3d::Convolve(const Window& window) const {
  const at::Tensor& buffer = window.buffer_;
  const SpacePadding pads = window.border_ > 0 ? SpacePadding::kNone : SpacePadding::kZeros;
  if (buffer.size(0) < kKernel) {
    const int64_t border = 2 * window.border_;
    return at::empty({0, (buffer.size(1) - border - 1) / options_.stride.h + 1,
                      (buffer.size(2) - border - 1) / options_.stride.w + 1, options_.out_channels},
                     buffer.options());
  }
  return Conv3d(buffer, weight_.get(), bias_.get(), options_.stride, pads);
}

at::Tensor CausalConv3d::Close(Window window) const {
  RepeatEdges(window);
  return Convolve(window);
}

at::Tensor CausalConv3d::Close(State& state, Window window, bool last) const {
  RepeatEdges(window);
  if (!last) {
    const at::Tensor& buffer = window.buffer_;
    const int64_t length = buffer.size(0), stride = options_.stride.t;
    const int64_t used = length < kKernel ? 0 : ((length - kKernel) / stride + 1) * stride;
    state.tail = used == 0 ? buffer : buffer.narrow(0, used, length - used).clone();
  }
  return Convolve(window);
}

at::Tensor CausalConv3d::Push(State& state, at::Tensor frames, bool last) const {
  Window window = Open(state, frames.sizes(), frames.options(), last);
  window.Fresh().copy_(frames);
  frames.reset();
  return Close(state, std::move(window), last);
}

}  // namespace kino::engine
