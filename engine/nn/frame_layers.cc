#include "engine/nn/frame_layers.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/group_norm.h>

#include <vector>

#include "engine/ops/attention.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/norm_silu.h"

namespace kino::engine {

FrameConvolution::FrameConvolution(const WeightScope& scope, int64_t in, int64_t out,
                                   at::IntArrayRef kernel) {
  std::vector<int64_t> shape = {out, in};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  weight_ = scope.Get("weight", shape, LayerKind::kConvolution);
  bias_ = scope.Get("bias", {out}, LayerKind::kConvolution);
}

at::Tensor FrameConvolution::Apply(const at::Tensor& frames) const {
  const PinnedTensor weight = weight_.get(), bias = bias_.get();
  return Conv3d(frames, weight->dim() == 4 ? weight->unsqueeze(2) : *weight, bias, {});
}

GroupNorm::GroupNorm(const WeightScope& scope, int64_t channels, const Options& options)
    : weight_(scope.Get("weight", {channels})),
      bias_(scope.Get("bias", {channels})),
      options_(options) {}

at::Tensor GroupNorm::Apply(const at::Tensor& frames) const {
  const PinnedTensor weight = weight_.get(), bias = bias_.get();
  return at::group_norm(frames.permute({0, 3, 1, 2}), options_.groups,
                        std::optional<at::Tensor>(*weight), std::optional<at::Tensor>(*bias),
                        options_.eps)
      .permute({0, 2, 3, 1})
      .contiguous();
}

at::Tensor GroupNorm::ApplySilu(const at::Tensor& frames, Over over) const {
  const PinnedTensor weight = weight_.get(), bias = bias_.get();
  at::Tensor out = at::empty_like(frames);
  // A clip is one frame as high as all of its frames.
  const auto view = [over](const at::Tensor& x) {
    return over == Over::kClip ? x.flatten(0, 1).unsqueeze(0) : x;
  };
  GroupNormSilu(view(frames),
                {.groups = options_.groups, .eps = options_.eps, .weight = weight, .bias = bias},
                view(out));
  return out;
}

FrameResnet::FrameResnet(const WeightScope& scope, int64_t in, int64_t out,
                         const GroupNorm::Options& norm)
    : norm1_(scope.Sub("norm1"), in, norm),
      norm2_(scope.Sub("norm2"), out, norm),
      conv1_(scope.Sub("conv1"), in, out, {3, 3}),
      conv2_(scope.Sub("conv2"), out, out, {3, 3}) {
  if (in != out) shortcut_.emplace(scope.Sub("conv_shortcut"), in, out, at::IntArrayRef{1, 1});
}

at::Tensor FrameResnet::Apply(const at::Tensor& frames) const {
  at::Tensor hidden = conv1_.Apply(norm1_.ApplySilu(frames));
  hidden = conv2_.Apply(norm2_.ApplySilu(hidden));
  return hidden.add_(shortcut_ ? shortcut_->Apply(frames) : frames);
}

FrameAttention::FrameAttention(const WeightScope& scope, int64_t channels,
                               const GroupNorm::Options& norm)
    : norm_(scope.Sub("group_norm"), channels, norm),
      q_(scope.Linear("to_q", channels, channels)),
      k_(scope.Linear("to_k", channels, channels)),
      v_(scope.Linear("to_v", channels, channels)),
      out_(scope.Linear("to_out.0", channels, channels)) {}

at::Tensor FrameAttention::Apply(const at::Tensor& frames) const {
  const at::Tensor normed = norm_.Apply(frames).flatten(1, 2);
  const at::Tensor q = q_.Apply(normed), k = k_.Apply(normed);
  const at::Tensor attended = Attention(q, k, v_.Apply(normed), /*heads=*/1);
  return out_.Apply(attended).view(frames.sizes()).add_(frames);
}

at::Tensor DoubleSides(const at::Tensor& frames) {
  const int64_t t = frames.size(0), h = frames.size(1), w = frames.size(2), c = frames.size(3);
  return frames.view({t, h, 1, w, 1, c}).expand({t, h, 2, w, 2, c}).reshape({t, 2 * h, 2 * w, c});
}

}  // namespace kino::engine
