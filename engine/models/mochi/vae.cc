#include "engine/models/mochi/vae.h"

#include <ATen/ops/silu.h>

#include <algorithm>
#include <utility>

#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/norm_silu.h"
#include "engine/ops/space_depth.h"

namespace kino::engine {

MochiVae::Resnet::Resnet(const WeightScope& scope, int64_t channels)
    : conv1(scope.Sub("conv1").Sub("conv"),
            {.in_channels = channels, .out_channels = channels, .repeats_edges = true}),
      conv2(scope.Sub("conv2").Sub("conv"),
            {.in_channels = channels, .out_channels = channels, .repeats_edges = true}) {
  const auto norm = [&](const char* name) {
    const WeightScope layer = scope.Sub(name).Sub("norm_layer");
    return Norm{layer.Get("weight", {channels}), layer.Get("bias", {channels})};
  };
  norm1 = norm("norm1");
  norm2 = norm("norm2");
}

MochiVae::MochiVae(const MochiVaeConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
                   c10::Device device)
    : Component(files, dtype, device), config_(config) {
  weights().AllowUnexpected("encoder.");
  const WeightScope decoder =
      WeightScope(weights(), weights().AddGroup("decoder", "decoder")).Sub("decoder");
  const size_t ups = config_.temporal_expansions.size();
  const auto channels = [&](size_t from_end) {
    return int64_t{config_.decoder_block_out_channels[ups - from_end]};
  };
  const auto add_block = [&](const WeightScope& scope, int64_t width, size_t layers_index) {
    Block& block = blocks_.emplace_back();
    block.channels = width;
    for (int i = 0; i < config_.layers_per_block[layers_index]; ++i)
      block.resnets.emplace_back(scope.Sub("resnets", i).InOwnGroup(), width);
  };
  conv_in_weight_ = decoder.Sub("conv_in").Get(
      "weight", {channels(0), config_.latent_channels, 1, 1, 1}, LayerKind::kConvolution);
  conv_in_bias_ = decoder.Sub("conv_in").Get("bias", {channels(0)}, LayerKind::kConvolution);
  add_block(decoder.Sub("block_in"), channels(0), ups + 1);
  for (size_t i = 0; i < ups; ++i) {
    const WeightScope scope = decoder.Sub("up_blocks", static_cast<int>(i));
    add_block(scope, channels(i), ups - i);
    Block& block = blocks_.back();
    const int64_t space = config_.spatial_expansions[ups - 1 - i];
    block.stride = {.t = config_.temporal_expansions[ups - 1 - i], .h = space, .w = space};
    block.expanded_channels = channels(i + 1);
    block.expansion = scope.InOwnGroup().Linear("proj", channels(i),
                                                block.expanded_channels * block.stride.product());
  }
  add_block(decoder.Sub("block_out"), channels(ups), 0);
  proj_out_ = decoder.Linear("proj_out", channels(ups), config_.out_channels);
}

at::Tensor MochiVae::Resnet::Push(State& state, at::Tensor frames, bool last) const {
  const auto norm_into = [](const at::Tensor& from, const Norm& norm,
                            const CausalConv3d::Window& window) {
    const PinnedTensor weight = norm.weight.get(), bias = norm.bias.get();
    GroupNormSilu(from, {.weight = weight, .bias = bias}, window.Fresh());
  };
  CausalConv3d::Window window = conv1.Open(state.conv1, frames.sizes(), frames.options(), last);
  norm_into(frames, norm1, window);
  at::Tensor hidden = conv1.Close(state.conv1, std::move(window), last);
  window = conv2.Open(state.conv2, hidden.sizes(), hidden.options(), last);
  norm_into(hidden, norm2, window);
  hidden.reset();
  hidden = conv2.Close(state.conv2, std::move(window), last);
  return hidden.add_(frames);
}

FrameChain MochiVae::Begin(int64_t run_positions, const RunLength& runs) const {
  FrameChain chain;
  int64_t positions = run_positions;
  chain.Add(
      [this](const at::Tensor& frames, bool) {
        return Conv3d(frames.contiguous(), conv_in_weight_.get(), conv_in_bias_.get(), {});
      },
      runs.Frames(positions * blocks_.front().channels));
  for (const Block& block : blocks_) {
    for (const Resnet& resnet : block.resnets) {
      chain.Add(
          [&resnet, state = Resnet::State()](at::Tensor frames, bool last) mutable {
            return resnet.Push(state, std::move(frames), last);
          },
          runs.Frames(positions * block.channels));
    }
    if (block.expanded_channels == 0) continue;
    positions *= block.stride.h * block.stride.w;
    chain.Add([&block](const at::Tensor& frames,
                       bool) { return DepthToSpace(block.expansion.Apply(frames), block.stride); },
              runs.Frames(block.stride.t * positions * block.expanded_channels, block.stride.t));
  }
  // The first frames come of the repeated beginning; diffusers drops them.
  chain.Add(
      [this, dropped = int64_t{config_.temporal_ratio() - 1}](at::Tensor frames, bool) mutable {
        const int64_t skipped = std::min(dropped, frames.size(0));
        dropped -= skipped;
        frames = frames.narrow(0, skipped, frames.size(0) - skipped);
        return proj_out_.Apply(at::silu_(frames));
      },
      runs.Frames(positions * blocks_.back().channels));
  return chain;
}

std::unique_ptr<DecodeStream> MochiVae::Decode(const at::Tensor& latents,
                                               const std::optional<TileGrid>& grid,
                                               const std::optional<RunLength>& runs) const {
  const BeginDecode begin = [&](int64_t, int64_t, int64_t run_positions) {
    return Begin(run_positions, runs.value_or(RunLengthOn(device())));
  };
  return DecodeInTiles(begin, latents, grid, config_.spatial_ratio());
}

}  // namespace kino::engine
