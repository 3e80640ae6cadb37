#include "engine/nn/frame_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty_like.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/ops/attention.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/norm_silu.h"

namespace kino::engine {
namespace {

// What is normed together as one frame: a clip is one as high as all of its frames.
at::Tensor WholeOf(const at::Tensor& frames, GroupNorm::Over over) {
  return over == GroupNorm::Over::kClip ? frames.flatten(0, 1).unsqueeze(0) : frames;
}

}  // namespace

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

at::Tensor GroupNorm::Apply(const at::Tensor& frames, Over over) const {
  // Written out, since torch has no group norm for meta tensors; in float32, rounded once.
  const at::Tensor grouped =
      WholeOf(frames, over).to(at::kFloat).flatten(1, 2).unflatten(2, {options_.groups, -1});
  const auto mean = [](const at::Tensor& x) { return x.mean({1, 3}, /*keepdim=*/true); };
  const at::Tensor centred = grouped - mean(grouped);
  const at::Tensor normed =
      (centred * (mean(centred.square()) + options_.eps).rsqrt_()).view(frames.sizes());
  const PinnedTensor weight = weight_.get(), bias = bias_.get();
  return (normed * *weight + *bias).to(frames.scalar_type());
}

at::Tensor GroupNorm::ApplySilu(const at::Tensor& frames, Over over) const {
  const PinnedTensor weight = weight_.get(), bias = bias_.get();
  at::Tensor out = at::empty_like(frames);
  GroupNormSilu(WholeOf(frames, over),
                {.groups = options_.groups, .eps = options_.eps, .weight = weight, .bias = bias},
                WholeOf(out, over));
  return out;
}

at::Tensor GroupNorm::ClipAffine(const at::Tensor& clip) const {
  const PinnedTensor weight = weight_.get(), bias = bias_.get();
  return GroupNormAffine(
      WholeOf(clip, Over::kClip),
      {.groups = options_.groups, .eps = options_.eps, .weight = weight, .bias = bias});
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
  at::Tensor normed = norm2_.ApplySilu(hidden);
  hidden.reset();  // a clip at full size is large
  hidden = conv2_.Apply(normed);
  normed.reset();
  return hidden.add_(shortcut_ ? shortcut_->Apply(frames) : frames);
}

TemporalResnet::TemporalResnet(const WeightScope& scope, int64_t channels,
                               const GroupNorm::Options& norm, bool doubles_frames)
    : doubles_frames_(doubles_frames) {
  // A dropout comes before the convolution of the middle two.
  constexpr std::array<const char*, 4> kConvolutionAt = {"2", "3", "3", "2"};
  const int64_t side = doubles_frames ? 3 : 1;
  for (size_t i = 0; i < norms_.size(); ++i) {
    const WeightScope part = scope.Sub(absl::StrCat("conv", i + 1));
    const bool is_doubling = doubles_frames && i == 0;
    norms_[i] = GroupNorm(part.Sub("0"), channels, norm);
    convolutions_[i] =
        FrameConvolution(part.Sub(kConvolutionAt[i]), channels,
                         is_doubling ? 2 * channels : channels, {is_doubling ? 1 : 3, side, side});
  }
}

at::Tensor TemporalResnet::Apply(const at::Tensor& frames) const {
  at::Tensor hidden = frames;
  for (size_t i = 0; i < norms_.size(); ++i) {
    const bool is_doubling = doubles_frames_ && i == 0;
    if (!is_doubling) {
      hidden = at::cat({hidden.narrow(0, 0, 1), hidden, hidden.narrow(0, hidden.size(0) - 1, 1)});
    }
    const at::Tensor normed = norms_[i].ApplySilu(hidden, GroupNorm::Over::kClip);
    hidden.reset();  // a clip at full size is large
    hidden = convolutions_[i].Apply(normed);
    // Channels are (which of two frames, channel).
    if (is_doubling) hidden = hidden.unflatten(3, {2, -1}).permute({0, 3, 1, 2, 4}).flatten(0, 1);
  }
  return hidden.add_(doubles_frames_ ? frames.repeat_interleave(2, 0) : frames);
}

FrameAttention::FrameAttention(const WeightScope& scope, int64_t channels,
                               const GroupNorm::Options& norm, Sees sees)
    : norm_(scope.Sub("group_norm"), channels, norm),
      sees_(sees),
      q_(scope.Linear("to_q", channels, channels)),
      k_(scope.Linear("to_k", channels, channels)),
      v_(scope.Linear("to_v", channels, channels)),
      out_(scope.Linear("to_out.0", channels, channels)) {}

at::Tensor FrameAttention::Apply(const at::Tensor& frames) const {
  const bool sees_earlier = sees_ == Sees::kFramesSoFar;
  at::Tensor normed =
      norm_.Apply(frames, sees_earlier ? GroupNorm::Over::kClip : GroupNorm::Over::kFrame)
          .flatten(1, 2);
  at::Tensor attended = q_.Apply(normed);
  const at::Tensor k = k_.Apply(normed), v = v_.Apply(normed);
  normed.reset();
  if (!sees_earlier) {
    attended = Attention(attended, k, v, /*heads=*/1);
  } else {
    // A frame's queries are wanted no more once it has attended.
    const int64_t positions = k.size(1);
    for (int64_t frame = 0; frame < frames.size(0); ++frame) {
      const auto so_far = [&](const at::Tensor& x) {
        return x.flatten(0, 1).narrow(0, 0, (frame + 1) * positions).unsqueeze(0);
      };
      const at::Tensor q = attended.narrow(0, frame, 1);
      q.copy_(Attention(q, so_far(k), so_far(v), /*heads=*/1));
    }
  }
  return out_.Apply(attended).view(frames.sizes()).add_(frames);
}

at::Tensor PadTime(const at::Tensor& frames) {
  return at::constant_pad_nd(frames, {0, 0, 0, 0, 0, 0, 1, 1});
}

at::Tensor DoubleSides(const at::Tensor& frames) {
  const int64_t t = frames.size(0), h = frames.size(1), w = frames.size(2), c = frames.size(3);
  return frames.view({t, h, 1, w, 1, c}).expand({t, h, 2, w, 2, c}).reshape({t, 2 * h, 2 * w, c});
}

}  // namespace kino::engine
