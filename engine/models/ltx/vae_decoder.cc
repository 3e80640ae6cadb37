#include "engine/models/ltx/vae_decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include "engine/core/status_bridge.h"

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

bool Idle(const at::Tensor& frames, bool last) { return frames.size(0) == 0 && !last; }

}  // namespace

LtxVaeDecoder::LtxVaeDecoder(const LtxVaeConfig& config, const WeightScope& scope)
    : patch_size_(config.patch_size),
      conv_in_(scope.Sub("conv_in"), config.latent_channels, config.decoder_channels, {},
               config.decoder_causal),
      conv_out_(scope.Sub("conv_out"), LastChannels(config),
                config.out_channels * config.patch_size * config.patch_size, {},
                config.decoder_causal) {
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
  if (config.timestep_conditioning)
    mid.time_embedder = MakeEmbedder(mid_scope, config.decoder_channels * 4);
  add_resnets(mid, mid_scope, config.decoder_mid_layers,
              resnet_options(config.decoder_channels, config.decoder_channels,
                             config.decoder_mid_inject_noise));
  for (size_t i = 0; i < config.up_blocks.size(); ++i) {
    const LtxVaeUpBlock& up = config.up_blocks[i];
    const WeightScope up_scope = scope.Sub("up_blocks", static_cast<int>(i));
    Block& block = blocks_.emplace_back();
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

LtxVaeDecoder::State LtxVaeDecoder::Start(int64_t height, int64_t width, const at::Tensor& timestep,
                                          std::optional<at::Generator> noise_generator,
                                          const at::TensorOptions& options) const {
  const auto dtype = c10::typeMetaToScalarType(options.dtype());
  at::Tensor scaled;
  if (timestep_scale_multiplier_) {
    TORCH_CHECK(timestep.defined() && timestep.numel() == 1,
                "this decoder is conditioned on one timestep");
    // In the weights' dtype, as diffusers has it: 0.05 in bfloat16 is not 50 afterwards.
    scaled = (timestep.flatten().to(options) * timestep_scale_multiplier_.get()).to(at::kFloat);
  }
  State state;
  for (const Block& block : blocks_) {
    BlockState& block_state = state.blocks.emplace_back();
    at::Tensor temb;
    if (block.time_embedder) temb = block.time_embedder->Forward(scaled, dtype).flatten();
    if (block.conv_in)
      block_state.conv_in = block.conv_in->Start(temb, noise_generator, height, width, options);
    if (block.upsampler) {
      height *= 2;
      width *= 2;
    }
    for (const LtxVaeResnet& resnet : block.resnets) {
      block_state.resnets.push_back(resnet.Start(temb, noise_generator, height, width, options));
    }
  }
  if (time_embedder_) {
    const at::Tensor embedded = time_embedder_->Forward(scaled, dtype).view({2, -1});
    const at::Tensor table = embedded + scale_shift_table_.get();
    state.modulation = {.shift = table[0], .scale_plus_one = table[1] + 1};
  }
  return state;
}

at::Tensor LtxVaeDecoder::PushBlock(const Block& block, BlockState& state, at::Tensor frames,
                                    bool last, const RunContext& context) const {
  if (block.conv_in) {
    ThrowIfError(context.Advance());
    frames = block.conv_in->Push(state.conv_in, frames, last);
  }
  if (block.upsampler && !Idle(frames, last))
    frames = block.upsampler->Push(state.upsampler, frames, last);
  for (size_t i = 0; i < block.resnets.size() && !Idle(frames, last); ++i) {
    ThrowIfError(context.Advance());
    frames = block.resnets[i].Push(state.resnets[i], frames, last);
  }
  return frames;
}

at::Tensor LtxVaeDecoder::Push(State& state, const at::Tensor& latents, bool last,
                               const RunContext& context) const {
  ThrowIfError(context.Advance());
  at::Tensor frames = conv_in_.Push(state.conv_in, latents.squeeze(0).permute({1, 2, 3, 0}), last);
  for (size_t i = 0; i < blocks_.size() && !Idle(frames, last); ++i) {
    frames = PushBlock(blocks_[i], state.blocks[i], std::move(frames), last, context);
  }
  if (Idle(frames, last)) return {};
  LtxTemporalConv::Window window =
      conv_out_.Open(state.conv_out, frames.sizes(), frames.options(), last);
  LtxNormSilu(frames, state.modulation, window.fresh);
  frames = at::Tensor();
  return Unpatchify(conv_out_.Close(state.conv_out, std::move(window), last), patch_size_);
}

}  // namespace kino::engine
