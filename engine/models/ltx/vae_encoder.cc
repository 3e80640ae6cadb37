#include "engine/models/ltx/vae_encoder.h"

#include <ATen/ops/cat.h>

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

// [1, C, T, H, W] -> [T, H / p, W / p, C * p * p]; channels in the order (c, x within the patch, y
// within it).
at::Tensor Patchify(const at::Tensor& video, int64_t p) {
  const int64_t channels = video.size(1), frames = video.size(2), height = video.size(3) / p,
                width = video.size(4) / p;
  return video.reshape({channels, frames, height, p, width, p})
      .permute({1, 2, 4, 0, 5, 3})
      .contiguous()
      .view({frames, height, width, channels * p * p});
}

int64_t LastChannels(const LtxVaeConfig& config) {
  return config.down_blocks.empty() ? config.encoder_channels
                                    : config.down_blocks.back().out_channels;
}

// The next layer has nothing to do: no frame came and none is to be flushed.
bool Idle(const at::Tensor& frames, bool last) { return frames.size(0) == 0 && !last; }

}  // namespace

LtxVaeEncoder::LtxVaeEncoder(const LtxVaeConfig& config, const WeightScope& scope)
    : patch_size_(config.patch_size),
      conv_in_(scope.Sub("conv_in"), config.in_channels * config.patch_size * config.patch_size,
               config.encoder_channels, {}, config.encoder_causal),
      conv_out_(scope.Sub("conv_out"), LastChannels(config), config.latent_channels + 1, {},
                config.encoder_causal) {
  const bool causal = config.encoder_causal;
  for (size_t i = 0; i < config.down_blocks.size(); ++i) {
    const LtxVaeDownBlock& block = config.down_blocks[i];
    const WeightScope block_scope = scope.Sub("down_blocks", static_cast<int>(i));
    LtxResnetOptions options = {.in_channels = block.in_channels,
                                .out_channels = block.in_channels,
                                .causal = causal,
                                .norm_eps = config.resnet_norm_eps};
    DownBlock& built = down_blocks_.emplace_back();
    for (int layer = 0; layer < block.layers; ++layer)
      built.resnets.emplace_back(block_scope.Sub("resnets", layer).InOwnGroup(), options);
    const WeightScope downsampler_scope = block_scope.Sub("downsamplers", 0).InOwnGroup();
    if (block.downsample == LtxVaeDownBlock::Downsample::kStridedConv) {
      built.strided_conv.emplace(downsampler_scope, block.in_channels, block.in_channels,
                                 block.stride, causal);
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

LtxVaeEncoder::State LtxVaeEncoder::Start() const {
  State state;
  for (const DownBlock& block : down_blocks_)
    state.down_blocks.emplace_back().resnets.resize(block.resnets.size());
  state.mid_block.resize(mid_block_.size());
  return state;
}

at::Tensor LtxVaeEncoder::PushDownBlock(const DownBlock& block, DownState& state, at::Tensor frames,
                                        bool last, const RunContext& context) const {
  for (size_t i = 0; i < block.resnets.size() && !Idle(frames, last); ++i) {
    ThrowIfError(context.Advance());
    frames = block.resnets[i].Push(state.resnets[i], frames, last);
  }
  if (Idle(frames, last)) return frames;
  if (block.strided_conv) frames = block.strided_conv->Push(state.strided_conv, frames, last);
  if (block.downsampler) frames = block.downsampler->Push(state.downsampler, frames, last);
  if (block.conv_out && !Idle(frames, last))
    frames = block.conv_out->Push(state.conv_out, frames, last);
  return frames;
}

at::Tensor LtxVaeEncoder::Push(State& state, const at::Tensor& video, bool last,
                               const RunContext& context) const {
  ThrowIfError(context.Advance());
  at::Tensor frames = conv_in_.Push(state.conv_in, Patchify(video, patch_size_), last);
  for (size_t i = 0; i < down_blocks_.size() && !Idle(frames, last); ++i) {
    frames = PushDownBlock(down_blocks_[i], state.down_blocks[i], std::move(frames), last, context);
  }
  for (size_t i = 0; i < mid_block_.size() && !Idle(frames, last); ++i) {
    ThrowIfError(context.Advance());
    frames = mid_block_[i].Push(state.mid_block[i], frames, last);
  }
  if (Idle(frames, last)) return {};
  LtxTemporalConv::Window window =
      conv_out_.Open(state.conv_out, frames.sizes(), frames.options(), last);
  LtxNormSilu(frames, {}, window.fresh);
  const at::Tensor out = conv_out_.Close(state.conv_out, std::move(window), last);
  // One log variance serves all channels.
  const int64_t channels = out.size(3) - 1;
  const at::Tensor log_variance =
      out.narrow(3, channels, 1).expand({out.size(0), out.size(1), out.size(2), channels});
  return at::cat({out.narrow(3, 0, channels), log_variance}, 3)
      .permute({3, 0, 1, 2})
      .unsqueeze(0)
      .contiguous();
}

}  // namespace kino::engine
