#include "engine/models/ltx/vae_decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

namespace kino::engine {
namespace {

constexpr int64_t kSinusoids = 256;

int64_t LastChannels(const LtxVaeConfig& config) {
  return config.up_blocks.empty() ? config.decoder_channels : config.up_blocks.back().out_channels;
}

TimestepEmbedder MakeEmbedder(const WeightScope& scope, int64_t dim) {
  return TimestepEmbedder(scope.Sub("time_embedder").Sub("timestep_embedder"), kSinusoids, dim);
}

// [T, H, W, C * p * p] -> [T, H * p, W * p, C]; channels in the order (c, x within the patch, y
// within it).
at::Tensor Unpatchify(const at::Tensor& frames, int64_t p) {
  const int64_t count = frames.size(0), height = frames.size(1), width = frames.size(2),
                channels = frames.size(3) / (p * p);
  return frames.view({count, height, width, channels, p, p})
      .permute({0, 1, 5, 2, 4, 3})
      .contiguous()
      .view({count, height * p, width * p, channels});
}

}  // namespace

LtxVaeDecoder::LtxVaeDecoder(const LtxVaeConfig& config, const WeightScope& scope)
    : patch_size_(config.patch_size),
      channels_(config.decoder_channels),
      conv_in_(scope.Sub("conv_in").Sub("conv"), {.in_channels = config.latent_channels,
                                                  .out_channels = config.decoder_channels,
                                                  .causal = config.decoder_causal}),
      conv_out_(scope.Sub("conv_out").Sub("conv"),
                {.in_channels = LastChannels(config),
                 .out_channels = config.out_channels * config.patch_size * config.patch_size,
                 .causal = config.decoder_causal}) {
  const auto resnet_options = [&](int64_t in, int64_t out, bool inject_noise) {
    return LtxResnetOptions{.in_channels = in,
                            .out_channels = out,
                            .causal = config.decoder_causal,
                            .norm_eps = config.resnet_norm_eps,
                            .inject_noise = inject_noise,
                            .timestep_conditioning = config.timestep_conditioning};
  };
  const auto add_resnets = [](Block& block, const WeightScope& block_scope, int layers,
                              const LtxResnetOptions& options) {
    for (int i = 0; i < layers; ++i)
      block.resnets.emplace_back(block_scope.Sub("resnets", i).InOwnGroup(), options);
  };
  const WeightScope mid_scope = scope.Sub("mid_block");
  Block& mid = blocks_.emplace_back();
  mid.in_channels = mid.channels = config.decoder_channels;
  if (config.timestep_conditioning)
    mid.time_embedder = MakeEmbedder(mid_scope, config.decoder_channels * 4);
  add_resnets(mid, mid_scope, config.decoder_mid_layers,
              resnet_options(config.decoder_channels, config.decoder_channels,
                             config.decoder_mid_inject_noise));
  for (size_t i = 0; i < config.up_blocks.size(); ++i) {
    const LtxVaeUpBlock& up = config.up_blocks[i];
    const WeightScope up_scope = scope.Sub("up_blocks", static_cast<int>(i));
    Block& block = blocks_.emplace_back();
    block.in_channels = up.in_channels;
    block.channels = up.out_channels;
    if (config.timestep_conditioning)
      block.time_embedder = MakeEmbedder(up_scope, up.in_channels * 4);
    if (up.in_channels != up.out_channels) {
      block.conv_in.emplace(up_scope.Sub("conv_in").InOwnGroup(),
                            resnet_options(up.in_channels, up.out_channels, up.inject_noise));
    }
    if (up.upsample) {
      block.upsampler.emplace(up_scope.Sub("upsamplers", 0).InOwnGroup(),
                              up.out_channels * up.upscale_factor, up.upscale_factor,
                              up.upsample_residual, config.decoder_causal);
    }
    add_resnets(block, up_scope, up.layers,
                resnet_options(up.out_channels, up.out_channels, up.inject_noise));
  }
  if (config.timestep_conditioning) {
    timestep_scale_multiplier_ = scope.Get("timestep_scale_multiplier", {});
    time_embedder_ = MakeEmbedder(scope, LastChannels(config) * 2);
    scale_shift_table_ = scope.Get("scale_shift_table", {2, LastChannels(config)});
  }
}

FrameChain LtxVaeDecoder::Begin(const Start& start) const {
  const auto dtype = c10::typeMetaToScalarType(start.options.dtype());
  at::Tensor scaled;
  if (timestep_scale_multiplier_) {
    TORCH_CHECK(start.timestep.defined() && start.timestep.numel() == 1,
                "this decoder is conditioned on one timestep");
    // In the weights' dtype, as diffusers has it: 0.05 in bfloat16 is not 50 afterwards.
    scaled = (start.timestep.flatten().to(start.options) * timestep_scale_multiplier_.get())
                 .to(at::kFloat);
  }
  FrameChain chain;
  int64_t height = start.height, width = start.width, positions = start.run_positions;
  chain.Add(
      [this, state = CausalConv3d::State()](at::Tensor frames, bool last) mutable {
        return conv_in_.Push(state, std::move(frames), last);
      },
      start.runs.Frames(positions * channels_));
  for (const Block& block : blocks_) {
    at::Tensor temb;
    if (block.time_embedder) temb = block.time_embedder->Forward(scaled, dtype).flatten();
    const auto add_resnet = [&](const LtxVaeResnet& resnet, int64_t channels) {
      chain.Add(
          [&resnet, state = resnet.Start(temb, start.noise_generator, height, width,
                                         start.options)](at::Tensor frames, bool last) mutable {
            return resnet.Push(state, std::move(frames), last);
          },
          start.runs.Frames(positions * channels));
    };
    if (block.conv_in) add_resnet(*block.conv_in, std::max(block.in_channels, block.channels));
    if (block.upsampler) {
      height *= 2;
      width *= 2;
      positions *= 4;
      chain.Add([&upsampler = *block.upsampler, state = LtxVaeUpsampler::State()](
                    at::Tensor frames,
                    bool last) mutable { return upsampler.Push(state, std::move(frames), last); },
                start.runs.Frames(2 * positions * block.channels, /*out_frames=*/2));
    }
    for (const LtxVaeResnet& resnet : block.resnets) add_resnet(resnet, block.channels);
  }
  ChannelModulation modulation;
  if (time_embedder_) {
    const at::Tensor embedded = time_embedder_->Forward(scaled, dtype).view({2, -1});
    const at::Tensor table = embedded + scale_shift_table_.get();
    modulation = {.shift = table[0], .scale_plus_one = table[1] + 1};
  }
  chain.Add(
      [this, modulation, state = CausalConv3d::State()](at::Tensor frames, bool last) mutable {
        return Finish(state, modulation, std::move(frames), last);
      },
      start.runs.Frames(positions * blocks_.back().channels));
  return chain;
}

at::Tensor LtxVaeDecoder::Finish(CausalConv3d::State& state, const ChannelModulation& modulation,
                                 at::Tensor frames, bool last) const {
  CausalConv3d::Window window = conv_out_.Open(state, frames.sizes(), frames.options(), last);
  RmsNormSilu(frames, modulation, window.Fresh());
  frames.reset();
  return Unpatchify(conv_out_.Close(state, std::move(window), last), patch_size_);
}

}  // namespace kino::engine
