#include "engine/models/ltx/vae_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/randn.h>

#include <algorithm>

#include "engine/ops/conv3d.h"

namespace kino::engine {

LtxVaeResnet::LtxVaeResnet(const WeightScope& scope, const LtxResnetOptions& options)
    : conv1_(scope.Sub("conv1").Sub("conv"), {.in_channels = options.in_channels,
                                              .out_channels = options.out_channels,
                                              .causal = options.causal}),
      conv2_(scope.Sub("conv2").Sub("conv"), {.in_channels = options.out_channels,
                                              .out_channels = options.out_channels,
                                              .causal = options.causal}),
      norm_eps_(options.norm_eps) {
  const int64_t in = options.in_channels, out = options.out_channels;
  if (in != out) {
    norm3_weight_ = scope.Sub("norm3").Get("weight", {in});
    norm3_bias_ = scope.Sub("norm3").Get("bias", {in});
    const WeightScope shortcut = scope.Sub("conv_shortcut").Sub("conv");
    shortcut_weight_ = shortcut.Get("weight", {out, in, 1, 1, 1}, LayerKind::kConvolution);
    shortcut_bias_ = shortcut.Get("bias", {out}, LayerKind::kConvolution);
  }
  if (options.inject_noise) {
    per_channel_scale1_ = scope.Get("per_channel_scale1", {in, 1, 1});
    per_channel_scale2_ = scope.Get("per_channel_scale2", {in, 1, 1});
  }
  if (options.timestep_conditioning) scale_shift_table_ = scope.Get("scale_shift_table", {4, in});
}

LtxVaeResnet::State LtxVaeResnet::Start(const at::Tensor& temb,
                                        std::optional<at::Generator> noise_generator,
                                        int64_t height, int64_t width,
                                        const at::TensorOptions& options) const {
  State state;
  if (scale_shift_table_) {
    const at::Tensor table = temb.view({4, -1}) + scale_shift_table_.get();
    state.modulation1 = {.shift = table[0], .scale_plus_one = table[1] + 1};
    state.modulation2 = {.shift = table[2], .scale_plus_one = table[3] + 1};
  }
  if (per_channel_scale1_) {
    TORCH_CHECK(noise_generator.has_value(), "this decoder injects noise: a generator is needed");
    const auto draw = [&] {
      return at::randn({height, width}, noise_generator, options.device(at::kCPU))
          .unsqueeze(2)
          .to(options.device());
    };
    state.noise1 = draw();
    state.noise2 = draw();
  }
  return state;
}

at::Tensor LtxVaeResnet::Shortcut(const at::Tensor& frames) const {
  if (!shortcut_weight_) return frames;
  const at::Tensor normed =
      at::layer_norm(frames, {frames.size(3)}, *norm3_weight_.get(), *norm3_bias_.get(), norm_eps_);
  return Conv3d(normed, shortcut_weight_.get(), shortcut_bias_.get(), {});
}

// The window's known frames are normed anew: a pass over two frames, where keeping them normed
// beside the shortcut's would cost every layer two more.
CausalConv3d::Window LtxVaeResnet::OpenFirst(const State& state, const at::Tensor& frames,
                                             bool last) const {
  const int64_t recent = state.recent.defined() ? state.recent.size(0) : 0;
  CausalConv3d::Window window = conv1_.OpenBehind(recent > 0 ? CausalConv3d::kKnown : 0,
                                                  frames.sizes(), frames.options(), last);
  if (recent > 0) {
    const at::Tensor known = window.Known();
    const int64_t repeated = known.size(0) - recent;
    RmsNormSilu(state.recent, state.modulation1, known.narrow(0, repeated, recent));
    if (repeated > 0) known.narrow(0, 0, repeated).copy_(known.narrow(0, repeated, 1));
  }
  RmsNormSilu(frames, state.modulation1, window.Fresh());
  return window;
}

void LtxVaeResnet::AddShortcut(State& state, const at::Tensor& frames, at::Tensor& out) const {
  const int64_t count = out.size(0), from_recent = std::min(state.waiting, count),
                from_fresh = count - from_recent;
  if (from_recent > 0) {
    const int64_t oldest = state.recent.size(0) - state.waiting;
    out.narrow(0, 0, from_recent).add_(Shortcut(state.recent.narrow(0, oldest, from_recent)));
  }
  if (from_fresh > 0) {
    out.narrow(0, from_recent, from_fresh).add_(Shortcut(frames.narrow(0, 0, from_fresh)));
  }
  const int64_t fresh = frames.size(0), known = CausalConv3d::kKnown;
  state.waiting += fresh - count;
  if (fresh >= known || !state.recent.defined()) {
    const int64_t kept = std::min(fresh, known);
    // A copy: a view would keep all of `frames` alive.
    state.recent = frames.narrow(0, fresh - kept, kept).clone();
  } else if (fresh > 0) {
    const int64_t kept = std::min(state.recent.size(0), known - fresh);
    state.recent = at::cat({state.recent.narrow(0, state.recent.size(0) - kept, kept), frames});
  }
}

at::Tensor LtxVaeResnet::Push(State& state, at::Tensor frames, bool last) const {
  at::Tensor hidden = conv1_.Close(OpenFirst(state, frames, last));
  if (state.noise1.defined()) hidden.add_(state.noise1 * per_channel_scale1_.get()->flatten());
  if (hidden.size(0) > 0 || last) {
    CausalConv3d::Window window = conv2_.Open(state.conv2, hidden.sizes(), hidden.options(), last);
    RmsNormSilu(hidden, state.modulation2, window.Fresh());
    hidden.reset();
    hidden = conv2_.Close(state.conv2, std::move(window), last);
    if (state.noise2.defined()) hidden.add_(state.noise2 * per_channel_scale2_.get()->flatten());
  }
  AddShortcut(state, frames, hidden);
  if (last) state = {};
  return hidden;
}

LtxVaeDownsampler::LtxVaeDownsampler(const WeightScope& scope, int64_t in_channels,
                                     int64_t out_channels, const Stride3d& stride, bool causal)
    : conv_(scope.Sub("conv").Sub("conv"), {.in_channels = in_channels,
                                            .out_channels = out_channels / stride.product(),
                                            .causal = causal}),
      out_channels_(out_channels),
      stride_(stride) {}

at::Tensor LtxVaeDownsampler::Push(State& state, at::Tensor frames, bool last) const {
  if (!state.started && frames.size(0) > 0) {
    if (stride_.t > 1)
      frames = at::cat({frames.narrow(0, 0, std::min(stride_.t - 1, frames.size(0))), frames});
    state.started = true;
  }
  at::Tensor hidden = conv_.Push(state.conv, frames, last);
  // Whole groups of stride.t frames go on.
  const int64_t ready = (state.conv_frames.size() + hidden.size(0)) / stride_.t * stride_.t;
  at::Tensor out = SpaceToDepth(state.conv_frames.Exchange(hidden, ready), stride_);
  hidden.reset();
  const at::Tensor residual = SpaceToDepth(state.residual_frames.Exchange(frames, ready), stride_);
  frames.reset();
  TORCH_CHECK(!last || state.conv_frames.size() == 0,
              "a video whose frames do not fill the VAE's groups of ", stride_.t);
  const int64_t group = residual.size(3) / out_channels_;
  return out.add_(
      residual.view({out.size(0), out.size(1), out.size(2), out_channels_, group}).mean(-1));
}

LtxVaeUpsampler::LtxVaeUpsampler(const WeightScope& scope, int64_t in_channels,
                                 int64_t upscale_factor, bool residual, bool causal)
    : conv_(scope.Sub("conv").Sub("conv"),
            {.in_channels = in_channels,
             .out_channels = in_channels * kStride.product() / upscale_factor,
             .causal = causal}),
      residual_(residual) {}

at::Tensor LtxVaeUpsampler::Push(State& state, at::Tensor frames, bool last) const {
  at::Tensor hidden = conv_.Push(state.conv, frames, last);
  const int64_t ready = hidden.size(0);
  at::Tensor out = DepthToSpace(hidden, kStride);
  hidden.reset();
  if (residual_) {
    const at::Tensor residual =
        DepthToSpace(state.residual_frames.Exchange(frames, ready), kStride);
    // Repeated as a whole to fill the channels.
    const int64_t channels = residual.size(3);
    out.view({out.size(0), out.size(1), out.size(2), out.size(3) / channels, channels})
        .add_(residual.unsqueeze(3));
  }
  if (state.started || ready == 0) return out;
  state.started = true;
  return out.narrow(0, kStride.t - 1, out.size(0) - (kStride.t - 1));
}

}  // namespace kino::engine
