#include "engine/models/hunyuan_video/vae.h"

#include <algorithm>
#include <limits>

namespace kino::engine {

HunyuanVideoVae::HunyuanVideoVae(const HunyuanVideoVaeConfig& config, const ComponentFiles& files,
                                 c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device),
      config_(config),
      decoder_(MakeNetwork("decoder", "post_quant_conv", /*is_decoder=*/true)) {
  if (config_.has_encoder) {
    encoder_.emplace(MakeNetwork("encoder", "quant_conv", /*is_decoder=*/false));
  } else {
    for (const char* unused : {"encoder.", "quant_conv."}) weights().AllowUnexpected(unused);
  }
}

HunyuanVideoVae::Network HunyuanVideoVae::MakeNetwork(const char* name, const char* quant,
                                                      bool is_decoder) {
  const WeightScope whole(weights(), weights().AddGroup(name, name)), scope = whole.Sub(name);
  const GroupNorm::Options norm = {.groups = config_.norm_num_groups,
                                   .eps = HunyuanVideoVaeConfig::kNormEps};
  std::vector<int> channels = config_.block_out_channels;
  if (is_decoder) std::reverse(channels.begin(), channels.end());
  const int64_t latent = is_decoder ? config_.latent_channels : 2 * config_.latent_channels;
  const int64_t first = channels.front(), last = channels.back();
  Network network = {
      .is_decoder = is_decoder,
      .quant = FrameConvolution(whole.Sub(quant), latent, latent, {1, 1, 1}),
      .conv_in = ClipConvolution(scope.Sub("conv_in"), is_decoder ? latent : 3, first),
      .blocks = {},
      .norm_out = GroupNorm(scope.Sub("conv_norm_out"), last, norm),
      .conv_out = ClipConvolution(scope.Sub("conv_out"), last, is_decoder ? 3 : latent)};
  const auto add = [&](const WeightScope& block, int layers, int64_t in, int64_t out) -> Block& {
    Block& built = network.blocks.emplace_back();
    for (int i = 0; i < layers; ++i) {
      const WeightScope resnet = block.Sub("resnets", i).InOwnGroup();
      built.resnets.emplace_back(resnet, i == 0 ? in : out, out, norm);
    }
    return built;
  };
  const auto add_middle = [&](int64_t width) {
    const WeightScope middle = scope.Sub("mid_block");
    Block& block = add(middle, /*layers=*/2, width, width);
    if (!config_.mid_block_add_attention) return;
    block.attention.emplace(middle.Sub("attentions", 0).InOwnGroup(), width, norm,
                            FrameAttention::Sees::kFramesSoFar);
  };
  if (is_decoder) add_middle(first);
  int64_t from = first;
  for (size_t i = 0; i < channels.size(); ++i) {
    const WeightScope block =
        scope.Sub(is_decoder ? "up_blocks" : "down_blocks", static_cast<int>(i));
    const int64_t to = channels[i];
    Block& built = add(block, config_.layers_per_block + (is_decoder ? 1 : 0), from, to);
    from = to;
    // A block that resamples time resamples space.
    if (!config_.resamples_space(i)) continue;
    built.resamples_time = config_.resamples_time(i);
    const Stride3d stride =
        is_decoder ? Stride3d{} : Stride3d{.t = built.resamples_time ? 2 : 1, .h = 2, .w = 2};
    const char* const resamplers = is_decoder ? "upsamplers" : "downsamplers";
    built.resampler.emplace(block.Sub(resamplers, 0).InOwnGroup().Sub("conv"), to, to, stride);
  }
  if (!is_decoder) add_middle(last);
  return network;
}

FrameChain HunyuanVideoVae::Begin(const Network& network) const {
  FrameChain chain;
  const auto add = [&chain](auto layer) {
    chain.Add([layer](const at::Tensor& clip, bool) { return layer(clip); },
              /*most=*/std::numeric_limits<int64_t>::max());
  };
  add([&network](const at::Tensor& clip) {
    return network.conv_in.Apply(network.is_decoder ? network.quant.Apply(clip.contiguous())
                                                    : clip);
  });
  for (const Block& block : network.blocks) {
    for (const ClipResnet& resnet : block.resnets) {
      add([&resnet](const at::Tensor& clip) { return resnet.Apply(clip); });
      if (&resnet == &block.resnets.front() && block.attention)
        add([&block](const at::Tensor& clip) { return block.attention->Apply(clip); });
    }
    if (!block.resampler) continue;
    add([&block, is_decoder = network.is_decoder](const at::Tensor& clip) {
      return is_decoder ? block.resampler->ApplyDoubled(clip, block.resamples_time)
                        : block.resampler->Apply(clip);
    });
  }
  add([&network](const at::Tensor& clip) {
    const at::Tensor out = network.conv_out.ApplyNormed(clip, network.norm_out);
    return network.is_decoder ? out : network.quant.Apply(out);
  });
  return chain;
}

std::unique_ptr<DecodeStream> HunyuanVideoVae::Decode(
    const at::Tensor& latents, const std::optional<VaeTiling>& tiling) const {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 &&
                  latents.size(1) == config_.latent_channels && latents.size(2) > 0,
              "cannot decode latents of shape ", latents.sizes());
  const VaeTileSizes sizes = config_.tile_sizes();
  std::optional<TileGrid> in_space;
  if (tiling) in_space = sizes.With(*tiling).grid();
  const BeginClip decode_clip = [this, in_space](const at::Tensor& clip) {
    return DecodeInTiles([this](int64_t, int64_t, int64_t) { return Begin(decoder_); }, clip,
                         in_space, config_.spatial_ratio);
  };
  return DecodeInTimeTiles(decode_clip, latents, sizes.InTime(tiling),
                           HunyuanVideoVaeConfig::kTemporalRatio, SurplusFrame::kFirst);
}

at::Tensor HunyuanVideoVae::Encode(const VideoSource& video, const std::optional<VaeTiling>& tiling,
                                   const RunContext& context) const {
  const int64_t ratio = config_.spatial_ratio;
  TORCH_CHECK(encoder_, "HunyuanVideo's VAE was loaded to decode only");
  TORCH_CHECK(video.frames > 0 && video.height > 0 && video.width > 0 &&
                  video.height % ratio == 0 && video.width % ratio == 0,
              "cannot encode a video of ", video.frames, " frames, ", video.height, "x",
              video.width, " pixels, expected multiples of ", ratio);
  const VaeTileSizes sizes = config_.tile_sizes();
  const auto encode_clip = [&](int64_t first, int64_t count) {
    const at::Tensor pixels =
        PixelsOf(video.read(first, count), at::TensorOptions(device()).dtype(dtype()));
    const auto encode_tile = [&](int64_t y, int64_t height, int64_t x, int64_t width) {
      FrameChain chain = Begin(*encoder_);
      chain.Push(pixels.narrow(1, y, height).narrow(2, x, width), /*last=*/true);
      return chain.Next(context).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
    };
    if (!tiling) return encode_tile(0, video.height, 0, video.width);
    const TileGrid grid = sizes.With(*tiling).grid();
    return EncodeInTiles(encode_tile, video.height, video.width, grid, grid.InLatents(ratio), ratio,
                         PartLatent::kOneMore);
  };
  return EncodeInTimeTiles(encode_clip, video.frames, sizes.InTime(tiling),
                           HunyuanVideoVaeConfig::kTemporalRatio);
}

}  // namespace kino::engine
