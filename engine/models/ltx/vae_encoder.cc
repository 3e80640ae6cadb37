#include "engine/models/ltx/vae_encoder.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>

namespace kino::engine {
namespace {

int64_t LastChannels(const LtxVaeConfig& config) {
  return config.down_blocks.empty() ? config.encoder_channels
                                    : config.down_blocks.back().out_channels;
}

}  // namespace

LtxVaeEncoder::LtxVaeEncoder(const LtxVaeConfig& config, const WeightScope& scope)
    : patch_size_(config.patch_size),
      channels_(config.encoder_channels),
      conv_in_(scope.Sub("conv_in").Sub("conv"),
               {.in_channels = config.in_channels * config.patch_size * config.patch_size,
                .out_channels = config.encoder_channels,
                .causal = config.encoder_causal}),
      conv_out_(scope.Sub("conv_out").Sub("conv"), {.in_channels = LastChannels(config),
                                                    .out_channels = config.latent_channels + 1,
                                                    .causal = config.encoder_causal}) {
  const bool causal = config.encoder_causal;
  for (size_t i = 0; i < config.down_blocks.size(); ++i) {
    const LtxVaeDownBlock& block = config.down_blocks[i];
    const WeightScope block_scope = scope.Sub("down_blocks", static_cast<int>(i));
    LtxResnetOptions options = {.in_channels = block.in_channels,
                                .out_channels = block.in_channels,
                                .causal = causal,
                                .norm_eps = config.resnet_norm_eps};
    DownBlock& built = down_blocks_.emplace_back();
    built.in_channels = block.in_channels;
    built.out_channels = block.out_channels;
    built.stride = block.stride;
    for (int layer = 0; layer < block.layers; ++layer)
      built.resnets.emplace_back(block_scope.Sub("resnets", layer).InOwnGroup(), options);
    const WeightScope downsampler_scope = block_scope.Sub("downsamplers", 0).InOwnGroup();
    if (block.downsample == LtxVaeDownBlock::Downsample::kStridedConv) {
      built.strided_conv.emplace(downsampler_scope.Sub("conv"),
                                 CausalConv3dOptions{.in_channels = block.in_channels,
                                                     .out_channels = block.in_channels,
                                                     .stride = block.stride,
                                                     .causal = causal});
    } else if (block.downsample == LtxVaeDownBlock::Downsample::kSpaceToDepth) {
      built.downsampler.emplace(downsampler_scope, block.in_channels, block.out_channels,
                                block.stride, causal);
    }
    if (block.has_conv_out) {
      options.out_channels = block.out_channels;
      built.conv_out.emplace(block_scope.Sub("conv_out").InOwnGroup(), options);
    }
  }
  const int64_t channels = LastChannels(config);
  const LtxResnetOptions options = {.in_channels = channels,
                                    .out_channels = channels,
                                    .causal = causal,
                                    .norm_eps = config.resnet_norm_eps};
  for (int layer = 0; layer < config.encoder_mid_layers; ++layer) {
    mid_block_.emplace_back(scope.Sub("mid_block").Sub("resnets", layer).InOwnGroup(), options);
  }
}

FrameChain LtxVaeEncoder::Begin(int64_t height, int64_t width, const RunLength& runs) const {
  FrameChain chain;
  int64_t positions = height / patch_size_ * (width / patch_size_);
  chain.Add(
      [this, state = CausalConv3d::State()](at::Tensor video, bool last) mutable {
        return FirstLayer(state, std::move(video), last);
      },
      runs.Frames(positions * channels_));
  // Behind a layer that gives fewer frames than it takes, frames are gathered to whole runs.
  bool gathers = false;
  const auto add = [&](FrameChain::Layer layer, int64_t channels) {
    const int64_t most = runs.Frames(positions * channels);
    chain.Add(std::move(layer), most, gathers ? most : 1);
    gathers = false;
  };
  const auto add_resnet = [&](const LtxVaeResnet& resnet, int64_t channels) {
    add(
        [&resnet, state = LtxVaeResnet::State()](at::Tensor frames, bool last) mutable {
          return resnet.Push(state, std::move(frames), last);
        },
        channels);
  };
  for (const DownBlock& block : down_blocks_) {
    for (const LtxVaeResnet& resnet : block.resnets) add_resnet(resnet, block.in_channels);
    if (block.strided_conv) {
      add([&conv = *block.strided_conv, state = CausalConv3d::State()](
              at::Tensor frames,
              bool last) mutable { return conv.Push(state, std::move(frames), last); },
          block.in_channels);
    } else if (block.downsampler) {
      add([&downsampler = *block.downsampler, state = LtxVaeDownsampler::State()](
              at::Tensor frames,
              bool last) mutable { return downsampler.Push(state, std::move(frames), last); },
          block.in_channels);
    }
    if (block.strided_conv || block.downsampler) {
      positions /= block.stride.h * block.stride.w;
      gathers = block.stride.t > 1;
    }
    if (block.conv_out) {
      add_resnet(*block.conv_out, std::max(block.in_channels, block.out_channels));
    }
  }
  const int64_t channels = down_blocks_.empty() ? channels_ : down_blocks_.back().out_channels;
  for (const LtxVaeResnet& resnet : mid_block_) add_resnet(resnet, channels);
  add(
      [this, state = CausalConv3d::State()](at::Tensor frames, bool last) mutable {
        return LastLayer(state, std::move(frames), last);
      },
      channels);
  return chain;
}

at::Tensor LtxVaeEncoder::FirstLayer(CausalConv3d::State& state, at::Tensor video,
                                     bool last) const {
  const int64_t p = patch_size_, frames = video.size(0), height = video.size(1) / p,
                width = video.size(2) / p, channels = video.size(3);
  CausalConv3d::Window window =
      conv_in_.Open(state, {frames, height, width, channels * p * p}, video.options(), last);
  // Channels of a patch: (c, x within it, y within it).
  window.Fresh()
      .view({frames, height, width, channels, p, p})
      .copy_(video.view({frames, height, p, width, p, channels}).permute({0, 1, 3, 5, 4, 2}));
  video.reset();
  return conv_in_.Close(state, std::move(window), last);
}

at::Tensor LtxVaeEncoder::LastLayer(CausalConv3d::State& state, at::Tensor frames,
                                    bool last) const {
  CausalConv3d::Window window = conv_out_.Open(state, frames.sizes(), frames.options(), last);
  RmsNormSilu(frames, {}, window.Fresh());
  frames.reset();
  const at::Tensor out = conv_out_.Close(state, std::move(window), last);
  const int64_t channels = out.size(3) - 1;
  const at::Tensor log_variance =
      out.narrow(3, channels, 1).expand({out.size(0), out.size(1), out.size(2), channels});
  return at::cat({out.narrow(3, 0, channels), log_variance}, 3);
}

}  // namespace kino::engine
