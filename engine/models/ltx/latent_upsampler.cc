#include "engine/models/ltx/latent_upsampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>

#include <utility>

#include "engine/ops/space_depth.h"

namespace kino::engine {
namespace {

constexpr GroupNorm::Options kNorm = {.groups = LtxLatentUpsamplerConfig::kNormGroups, .eps = 1e-5};

}  // namespace

LtxLatentUpsampler::LtxLatentUpsampler(const Config& config, const ComponentFiles& files,
                                       c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const std::vector<int64_t> kernel(static_cast<size_t>(config.dims), 3);
  const int64_t channels = config.mid_channels;
  const WeightScope scope(weights(), weights().AddGroup("ends"));
  initial_conv_ = FrameConvolution(scope.Sub("initial_conv"), config.in_channels, channels, kernel);
  initial_norm_ = GroupNorm(scope.Sub("initial_norm"), channels, kNorm);
  final_conv_ = FrameConvolution(scope.Sub("final_conv"), channels, config.in_channels, kernel);
  // Frames by themselves where only they grow.
  const std::vector<int64_t> upsampling(config.temporal_upsample ? 3 : 2, 3);
  upsampler_ = FrameConvolution(scope.Sub("upsampler.0").InOwnGroup(), channels,
                                channels * config.factors().product(), upsampling);
  before_ = MakePart("res_blocks");
  behind_ = MakePart("post_upsample_res_blocks");
}

LtxLatentUpsampler::Part LtxLatentUpsampler::MakePart(const std::string& name) {
  const std::vector<int64_t> kernel(static_cast<size_t>(config_.dims), 3);
  const int64_t channels = config_.mid_channels;
  Part part;
  std::vector<WeightGroup*> groups = weights().AddGroups(name, config_.num_blocks_per_stage);
  for (int i = 0; i < config_.num_blocks_per_stage; ++i) {
    const WeightScope scope = WeightScope(weights(), *groups[static_cast<size_t>(i)]).Sub(name, i);
    part.blocks.push_back(
        {.conv1 = FrameConvolution(scope.Sub("conv1"), channels, channels, kernel),
         .conv2 = FrameConvolution(scope.Sub("conv2"), channels, channels, kernel),
         .norm1 = GroupNorm(scope.Sub("norm1"), channels, kNorm),
         .norm2 = GroupNorm(scope.Sub("norm2"), channels, kNorm)});
  }
  part.stack.emplace(residency(), std::move(groups));
  return part;
}

GroupNorm::Over LtxLatentUpsampler::over() const {
  return config_.dims == 3 ? GroupNorm::Over::kClip : GroupNorm::Over::kFrame;
}

at::Tensor LtxLatentUpsampler::Convolve(const FrameConvolution& convolution,
                                        const at::Tensor& frames) const {
  return convolution.Apply(config_.dims == 3 ? PadTime(frames) : frames);
}

at::Tensor LtxLatentUpsampler::Run(const Part& part, at::Tensor frames,
                                   const RunContext& context) const {
  Streams streams = {std::move(frames)};
  part.stack->Run(context, streams, [&](int i, Streams& stream) {
    const Block& block = part.blocks[static_cast<size_t>(i)];
    at::Tensor hidden = Convolve(block.conv1, stream[0]);
    hidden = Convolve(block.conv2, block.norm1.ApplySilu(hidden, over()));
    hidden = block.norm2.Apply(hidden, over());
    stream[0] = at::silu_(hidden.add_(stream[0]));
  });
  return streams[0];
}

at::Tensor LtxLatentUpsampler::Forward(const at::Tensor& latents, const RunContext& context) const {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 && latents.size(1) == config_.in_channels,
              "cannot upsample latents of shape ", latents.sizes());
  at::Tensor frames = latents.to(dtype()).squeeze(0).permute({1, 2, 3, 0}).contiguous();
  frames = initial_norm_.ApplySilu(Convolve(initial_conv_, frames), over());
  frames = Run(before_, std::move(frames), context);
  const bool grows_in_time = config_.temporal_upsample;
  frames =
      DepthToSpace(upsampler_.Apply(grows_in_time ? PadTime(frames) : frames), config_.factors());
  if (grows_in_time) frames = frames.narrow(0, 1, frames.size(0) - 1);
  frames = Run(behind_, std::move(frames), context);
  return Convolve(final_conv_, frames).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
}

}  // namespace kino::engine
