#include "engine/nn/clip_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "engine/nn/run_length.h"
#include "engine/ops/norm_silu.h"
#include "engine/ops/resample_frames.h"

namespace kino::engine {
namespace {

// Fills with SiLU of the normed clip; both tensors outlive it.
auto NormedSilu(const at::Tensor& clip, const at::Tensor& affine) {
  return [&clip, &affine](int64_t first, int64_t count, const at::Tensor& into) {
    AffineSilu(clip.narrow(0, first, count), affine, into);
  };
}

}  // namespace

ClipConvolution::ClipConvolution(const WeightScope& scope, int64_t in, int64_t out,
                                 const Stride3d& stride)
    : stride_(stride),
      convolution_(
          scope.Sub("conv"),
          {.in_channels = in, .out_channels = out, .stride = stride, .repeats_edges = true}) {}

// Over a clip of this shape, in runs of about equally many frames.
void ClipConvolution::InRuns(at::IntArrayRef shape, const at::TensorOptions& like, Fill fill,
                             Take take) const {
  const int64_t most =
      RunLengthOn(like.device()).Frames(shape[1] * shape[2] * convolution_.widest_side());
  const int64_t runs = (shape[0] + most - 1) / most, at_once = (shape[0] + runs - 1) / runs;
  CausalConv3d::State state;
  int64_t given = 0;
  for (int64_t first = 0; first < shape[0]; first += at_once) {
    const int64_t count = std::min(at_once, shape[0] - first);
    const bool last = first + count == shape[0];
    CausalConv3d::Window window =
        convolution_.Open(state, {count, shape[1], shape[2], shape[3]}, like, last);
    fill(first, count, window.Fresh());
    const at::Tensor frames = convolution_.Close(state, std::move(window), last);
    take(given, frames);
    given += frames.size(0);
  }
}

at::Tensor ClipConvolution::Whole(at::IntArrayRef shape, const at::TensorOptions& like,
                                  Fill fill) const {
  const int64_t out_frames = (shape[0] - 1) / stride_.t + 1;
  at::Tensor out;
  InRuns(shape, like, fill, [&](int64_t first, const at::Tensor& frames) {
    if (frames.size(0) == out_frames) {
      out = frames;
      return;
    }
    if (!out.defined())
      out = at::empty({out_frames, frames.size(1), frames.size(2), frames.size(3)}, like);
    out.narrow(0, first, frames.size(0)).copy_(frames);
  });
  return out;
}

at::Tensor ClipConvolution::Apply(const at::Tensor& clip) const {
  return Whole(clip.sizes(), clip.options(),
               [&clip](int64_t first, int64_t count, const at::Tensor& into) {
                 into.copy_(clip.narrow(0, first, count));
               });
}

at::Tensor ClipConvolution::ApplyNormed(const at::Tensor& clip, const GroupNorm& norm) const {
  const at::Tensor affine = norm.ClipAffine(clip);
  return Whole(clip.sizes(), clip.options(), NormedSilu(clip, affine));
}

void ClipConvolution::ApplyNormed(const at::Tensor& clip, const GroupNorm& norm, Take take) const {
  const at::Tensor affine = norm.ClipAffine(clip);
  InRuns(clip.sizes(), clip.options(), NormedSilu(clip, affine), take);
}

at::Tensor ClipConvolution::ApplyDoubled(const at::Tensor& clip, bool doubles_frames) const {
  const int64_t frames = doubles_frames ? 2 * clip.size(0) - 1 : clip.size(0);
  return Whole({frames, 2 * clip.size(1), 2 * clip.size(2), clip.size(3)}, clip.options(),
               [&](int64_t first, int64_t count, const at::Tensor& into) {
                 for (int64_t i = 0; i < count; ++i) {
                   const int64_t from = doubles_frames ? (first + i + 1) / 2 : first + i;
                   DoubleNearestInto(clip.narrow(0, from, 1), 1, into.narrow(0, i, 1));
                 }
               });
}

ClipResnet::ClipResnet(const WeightScope& scope, int64_t in, int64_t out,
                       const GroupNorm::Options& norm)
    : norm1_(scope.Sub("norm1"), in, norm),
      norm2_(scope.Sub("norm2"), out, norm),
      conv1_(scope.Sub("conv1"), in, out),
      conv2_(scope.Sub("conv2"), out, out) {
  if (in != out)
    shortcut_.emplace(scope.Sub("conv_shortcut").Sub("conv"), in, out, at::IntArrayRef{1, 1, 1});
}

at::Tensor ClipResnet::Apply(const at::Tensor& clip) const {
  const at::Tensor hidden = conv1_.ApplyNormed(clip, norm1_);
  // Over what it comes from: a clip at full size is large.
  conv2_.ApplyNormed(hidden, norm2_, [&](int64_t first, const at::Tensor& frames) {
    const at::Tensor part = clip.narrow(0, first, frames.size(0));
    frames.add_(shortcut_ ? shortcut_->Apply(part) : part);
    hidden.narrow(0, first, frames.size(0)).copy_(frames);
  });
  return hidden;
}

}  // namespace kino::engine
