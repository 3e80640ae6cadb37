#include "engine/models/cogvideox/vae.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/models/common/condition_frames.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/norm_silu.h"
#include "engine/ops/resample_frames.h"

namespace kino::engine {
namespace {

// Latent frames that are decoded together, and frames that are encoded so; the first batch takes
// what is left over as well (num_latent_frames_batch_size, num_sample_frames_batch_size).
constexpr int64_t kLatentBatch = 2, kFrameBatch = 8;
constexpr int kMidResnets = 2;
constexpr double kSpatialNormEps = 1e-6, kNormOutEps = 1e-6;
// A layer behind the first takes all that the one before it gives.
constexpr int64_t kWholeBatch = std::numeric_limits<int64_t>::max();

int64_t FirstBatch(int64_t frames, int64_t batch) {
  return frames < batch ? frames : batch + frames % batch;
}

// All frames as one.
at::Tensor Tall(const at::Tensor& frames) {
  return frames.view({1, frames.size(0) * frames.size(1), frames.size(2), frames.size(3)});
}

}  // namespace

CogVideoXVae::Norm CogVideoXVae::MakeNorm(const WeightScope& scope, int64_t channels, double eps,
                                          bool is_decoder) const {
  if (!is_decoder)
    return {.norm = scope.WithBias({channels}), .eps = eps, .scale = {}, .shift = {}};
  const auto of_latents = [&](const char* name) {
    return scope.Sub(name).Sub("conv").WithBias({channels, config_.latent_channels, 1, 1, 1},
                                                LayerKind::kConvolution);
  };
  return {.norm = scope.Sub("norm_layer").WithBias({channels}),
          .eps = kSpatialNormEps,
          .scale = of_latents("conv_y"),
          .shift = of_latents("conv_b")};
}

CogVideoXVae::Resnet CogVideoXVae::MakeResnet(const WeightScope& scope, int64_t in, int64_t out,
                                              bool is_decoder) const {
  const auto conv = [&](const char* name, int64_t from) {
    return CausalConv3d(scope.Sub(name).Sub("conv"), {.in_channels = from, .out_channels = out});
  };
  Resnet resnet = {.norm1 = MakeNorm(scope.Sub("norm1"), in, config_.norm_eps, is_decoder),
                   .norm2 = MakeNorm(scope.Sub("norm2"), out, config_.norm_eps, is_decoder),
                   .conv1 = conv("conv1", in),
                   .conv2 = conv("conv2", out),
                   .shortcut = {}};
  if (in != out) {
    resnet.shortcut =
        scope.Sub("conv_shortcut").WithBias({out, in, 1, 1, 1}, LayerKind::kConvolution);
  }
  return resnet;
}

CogVideoXVae::CogVideoXVae(const CogVideoXVaeConfig& config, const ComponentFiles& files,
                           c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  for (const bool is_decoder : {false, true}) {
    const char* const name = is_decoder ? "decoder" : "encoder";
    const WeightScope scope = WeightScope(weights(), weights().AddGroup(name, name)).Sub(name);
    std::vector<int> channels = config_.block_out_channels;
    if (is_decoder) std::reverse(channels.begin(), channels.end());
    const auto conv = [&](const char* layer, int64_t in, int64_t out) {
      return CausalConv3d(scope.Sub(layer).Sub("conv"), {.in_channels = in, .out_channels = out});
    };
    const int64_t in = is_decoder ? config_.latent_channels : 3;
    const int64_t out = is_decoder ? 3 : 2 * config_.latent_channels;
    auto network = std::make_unique<Network>(Network{
        .is_decoder = is_decoder,
        .conv_in = conv("conv_in", in, channels.front()),
        .blocks = {},
        .norm_out = MakeNorm(scope.Sub("norm_out"), channels.back(), kNormOutEps, is_decoder),
        .conv_out = conv("conv_out", channels.back(), out)});
    const auto add = [&](const WeightScope& block, int layers, int64_t from, int64_t to) {
      Block& built = network->blocks.emplace_back();
      for (int i = 0; i < layers; ++i) {
        built.resnets.push_back(
            MakeResnet(block.Sub("resnets", i).InOwnGroup(), i == 0 ? from : to, to, is_decoder));
      }
    };
    const auto add_mid = [&](int64_t width) {
      add(scope.Sub("mid_block"), kMidResnets, width, width);
    };
    if (is_decoder) add_mid(channels.front());
    int64_t from = channels.front();
    for (size_t i = 0; i < channels.size(); ++i) {
      const WeightScope block =
          scope.Sub(is_decoder ? "up_blocks" : "down_blocks", static_cast<int>(i));
      const int64_t to = channels[i];
      add(block, config_.layers_per_block + (is_decoder ? 1 : 0), from, to);
      from = to;
      if (i + 1 == channels.size()) continue;
      network->blocks.back().resampler = block.Sub(is_decoder ? "upsamplers" : "downsamplers", 0)
                                             .InOwnGroup()
                                             .Sub("conv")
                                             .WithBias({to, to, 3, 3}, LayerKind::kConvolution);
      network->blocks.back().resamples_time = (1 << i) < config_.temporal_ratio;
    }
    if (!is_decoder) add_mid(channels.back());
    (is_decoder ? decoder_ : encoder_) = std::move(network);
  }
}

void CogVideoXVae::NormSilu(const at::Tensor& frames, const Norm& norm, const at::Tensor& latents,
                            at::Tensor out) const {
  NearestModulation modulation;
  if (norm.scale) {
    const auto of_latents = [&](const WeightAndBias& layer) {
      return Conv3d(latents, layer.weight.get(), layer.bias.get(), {});
    };
    modulation = {.scale = of_latents(*norm.scale), .shift = of_latents(*norm.shift)};
  }
  const PinnedTensor weight = norm.norm.weight.get(), bias = norm.norm.bias.get();
  const FrameGroupNorm group_norm = {
      .groups = config_.norm_num_groups, .eps = norm.eps, .weight = weight, .bias = bias};
  if (norm.scale) return GroupNormModulateSilu(frames, group_norm, modulation, std::move(out));
  GroupNormSilu(Tall(frames), group_norm, Tall(out));
}

at::Tensor CogVideoXVae::Push(const Resnet& resnet, Resnet::State& state, at::Tensor frames,
                              const at::Tensor& latents) const {
  CausalConv3d::Window window =
      resnet.conv1.Open(state.conv1, frames.sizes(), frames.options(), /*last=*/false);
  NormSilu(frames, resnet.norm1, latents, window.Fresh());
  at::Tensor hidden = resnet.conv1.Close(state.conv1, std::move(window), /*last=*/false);
  window = resnet.conv2.Open(state.conv2, hidden.sizes(), hidden.options(), /*last=*/false);
  NormSilu(hidden, resnet.norm2, latents, window.Fresh());
  hidden.reset();
  hidden = resnet.conv2.Close(state.conv2, std::move(window), /*last=*/false);
  if (resnet.shortcut)
    frames = Conv3d(frames, resnet.shortcut->weight.get(), resnet.shortcut->bias.get(), {});
  return hidden.add_(frames);
}

FrameChain CogVideoXVae::Begin(const Network& network, int64_t first, int64_t most) const {
  FrameChain chain;
  // What the decoder's norms see: the batch of latents that is on its way.
  auto latents = std::make_shared<at::Tensor>();
  chain.Add(
      [&network, latents, state = CausalConv3d::State()](at::Tensor frames, bool last) mutable {
        if (network.is_decoder) *latents = frames;
        return network.conv_in.Push(state, std::move(frames), last);
      },
      most, /*least=*/1, first);
  for (const Block& block : network.blocks) {
    for (const Resnet& resnet : block.resnets) {
      chain.Add(
          [this, &resnet, latents, state = Resnet::State()](at::Tensor frames, bool) mutable {
            return Push(resnet, state, std::move(frames), *latents);
          },
          kWholeBatch);
    }
    if (!block.resampler) continue;
    chain.Add(
        [&block, is_decoder = network.is_decoder](at::Tensor frames, bool) {
          const auto convolve = [&](const Stride3d& stride, SpacePadding pads) {
            return Conv3d(frames, block.resampler->weight.get()->unsqueeze(2),
                          block.resampler->bias.get(), stride, pads);
          };
          if (is_decoder) {
            frames = DoubleNearest(frames, block.resamples_time);
            return convolve({}, SpacePadding::kZeros);
          }
          if (block.resamples_time) frames = MeanOfFramePairs(frames);
          // Zeros below and to the right.
          frames = at::constant_pad_nd(frames, {0, 0, 0, 1, 0, 1});
          return convolve({.t = 1, .h = 2, .w = 2}, SpacePadding::kNone);
        },
        kWholeBatch);
  }
  chain.Add(
      [this, &network, latents, state = CausalConv3d::State()](at::Tensor frames,
                                                               bool last) mutable {
        CausalConv3d::Window window =
            network.conv_out.Open(state, frames.sizes(), frames.options(), last);
        NormSilu(frames, network.norm_out, *latents, window.Fresh());
        frames.reset();
        return network.conv_out.Close(state, std::move(window), last);
      },
      kWholeBatch);
  return chain;
}

std::unique_ptr<DecodeStream> CogVideoXVae::Decode(const at::Tensor& latents,
                                                   const std::optional<VaeTiling>& tiling) const {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 &&
                  latents.size(1) == config_.latent_channels && latents.size(2) > 0,
              "cannot decode latents of shape ", latents.sizes());
  std::optional<TileGrid> grid;
  const int64_t ratio = config_.spatial_ratio();
  if (tiling) grid = OverlappingTiles(config_.tile_sizes(), *tiling).DecodeGrid(ratio);
  const BeginDecode begin = [&](int64_t, int64_t, int64_t) {
    return Begin(*decoder_, FirstBatch(latents.size(2), kLatentBatch), kLatentBatch);
  };
  return DecodeInTiles(begin, latents, grid, ratio);
}

at::Tensor CogVideoXVae::EncodeTile(const at::Tensor& video, const RunContext& context) const {
  const int64_t frames = video.size(0);
  FrameChain chain = Begin(*encoder_, FirstBatch(frames, kFrameBatch), kFrameBatch);
  std::vector<at::Tensor> moments;
  for (int64_t next = 0, count = 0; next < frames; next += count) {
    count = next == 0 ? FirstBatch(frames, kFrameBatch) : kFrameBatch;
    chain.Push(PixelsOf(video.narrow(0, next, count), at::TensorOptions(device()).dtype(dtype()))
                   .contiguous(),
               /*last=*/next + count == frames);
    while (true) {
      at::Tensor known = chain.Next(context);
      if (!known.defined()) break;
      moments.push_back(std::move(known));
    }
  }
  return at::cat(moments).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
}

at::Tensor CogVideoXVae::Encode(const at::Tensor& video, const std::optional<VaeTiling>& tiling,
                                const RunContext& context) const {
  const int64_t height = video.size(1), width = video.size(2), ratio = config_.spatial_ratio();
  if (!tiling) return EncodeTile(video, context);
  const OverlappingTiles tiles(config_.tile_sizes(), *tiling);
  const TileGrid pixels = tiles.PixelGrid();
  if (height <= pixels.min_height && width <= pixels.min_width) return EncodeTile(video, context);
  const auto encode = [&](int64_t y, int64_t tile_height, int64_t x, int64_t tile_width) {
    return EncodeTile(video.narrow(1, y, tile_height).narrow(2, x, tile_width), context);
  };
  return EncodeInTiles(encode, height, width, pixels, tiles.LatentGrid(ratio), ratio);
}

}  // namespace kino::engine
