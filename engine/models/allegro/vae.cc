#include "engine/models/allegro/vae.h"

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

constexpr double kSpaceEps = 1e-6, kTimeEps = 1e-5;

}  // namespace

void AllegroVae::AddStep(const WeightScope& block, int64_t in, int64_t out) {
  std::vector<Step>& steps = blocks_.back().steps;
  const int index = static_cast<int>(steps.size()), groups = config_.norm_num_groups;
  steps.push_back({FrameResnet(block.Sub("resnets", index).InOwnGroup(), in, out,
                               {.groups = groups, .eps = kSpaceEps}),
                   TemporalResnet(block.Sub("temp_convs", index).InOwnGroup(), out,
                                  {.groups = groups, .eps = kTimeEps})});
}

AllegroVae::AllegroVae(const AllegroVaeConfig& config, const ComponentFiles& files,
                       c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  for (const char* prefix : {"encoder.", "quant_conv."}) weights().AllowUnexpected(prefix);
  const WeightScope whole(weights(), weights().AddGroup("decoder", "decoder"));
  const WeightScope decoder = whole.Sub("decoder"), middle = decoder.Sub("mid_block");
  const int64_t latent = config_.latent_channels, first = config_.block_out_channels.back(),
                last = config_.block_out_channels.front();
  const GroupNorm::Options norm = {.groups = config_.norm_num_groups, .eps = kSpaceEps};
  post_quant_ = FrameConvolution(whole.Sub("post_quant_conv"), latent, latent, {1, 1});
  conv_in_ = FrameConvolution(decoder.Sub("conv_in"), latent, first, {3, 3});
  temp_conv_in_ = FrameConvolution(decoder.Sub("temp_conv_in"), first, first, {3, 1, 1});
  blocks_.emplace_back();
  for (int i = 0; i < 2; ++i) AddStep(middle, first, first);
  blocks_.back().attention.emplace(middle.Sub("attentions", 0).InOwnGroup(), first, norm);
  const size_t count = config_.block_out_channels.size();
  int64_t channels = first;
  for (size_t i = 0; i < count; ++i) {
    const WeightScope scope = decoder.Sub("up_blocks", static_cast<int>(i));
    const int64_t out = config_.block_out_channels[count - 1 - i];
    Block& block = blocks_.emplace_back();
    for (int j = 0; j <= config_.layers_per_block; ++j) {
      AddStep(scope, channels, out);
      channels = out;
    }
    if (config_.temporal_upsample_blocks[i]) {
      block.doubling.emplace(scope.Sub("temp_conv_up").InOwnGroup(), out,
                             GroupNorm::Options{.groups = norm.groups, .eps = kTimeEps}, true);
    }
    if (i + 1 < count) {
      block.upsampled =
          FrameConvolution(scope.Sub("upsamplers", 0).InOwnGroup().Sub("conv"), out, out, {3, 3});
    }
  }
  norm_out_ = GroupNorm(decoder.Sub("conv_norm_out"), last, norm);
  temp_conv_out_ = FrameConvolution(decoder.Sub("temp_conv_out"), last, last, {3, 1, 1});
  conv_out_ = FrameConvolution(decoder.Sub("conv_out"), last, config_.out_channels, {3, 3});
}

at::Tensor AllegroVae::DecodeTile(const at::Tensor& latents, const RunContext& context) const {
  at::Tensor frames =
      conv_in_.Apply(post_quant_.Apply(latents.squeeze(0).permute({1, 2, 3, 0}).contiguous()));
  frames = temp_conv_in_.Apply(PadTime(frames)).add_(frames);
  for (const Block& block : blocks_) {
    for (const Step& step : block.steps) {
      ThrowIfError(context.Advance());
      frames = step.temporal.Apply(step.resnet.Apply(frames));
      if (block.attention && &step == &block.steps.front()) frames = block.attention->Apply(frames);
    }
    if (block.doubling) frames = block.doubling->Apply(frames);
    if (block.upsampled) frames = block.upsampled->Apply(DoubleSides(frames));
  }
  frames = norm_out_.ApplySilu(frames);
  frames = temp_conv_out_.Apply(PadTime(frames)).add_(frames);
  return conv_out_.Apply(frames);
}

std::unique_ptr<DecodeStream> AllegroVae::Decode(const at::Tensor& latents,
                                                 const VaeTileSizes& tiles, int64_t frames) const {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 &&
                  latents.size(1) == config_.latent_channels && latents.size(2) > 0,
              "cannot decode latents of shape ", latents.sizes());
  return DecodeInClipTiles([this](const at::Tensor& tile,
                                  const RunContext& context) { return DecodeTile(tile, context); },
                           latents, tiles, frames);
}

}  // namespace kino::engine
