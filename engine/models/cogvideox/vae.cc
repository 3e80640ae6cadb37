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
constexpr int kLatentBatch = 2, kFrameBatch = 8;
// A layer behind the first takes all that the one before it gives.
constexpr int64_t kWholeBatch = std::numeric_limits<int64_t>::max();

}  // namespace

CogVideoXVae::Norm CogVideoXVae::MakeNorm(const WeightScope& scope, int64_t channels,
                                          bool is_decoder) const {
  if (!is_decoder) return {.norm = scope.WithBias({channels}), .scale = {}, .shift = {}};
  const auto of_latents = [&](const char* name) {
    return scope.Sub(name).Sub("conv").WithBias({channels, config_.latent_channels, 1, 1, 1},
                                                LayerKind::kConvolution);
  };
  return {.norm = scope.Sub("norm_layer").WithBias({channels}),
          .scale = of_latents("conv_y"),
          .shift = of_latents("conv_b")};
}

CogVideoXVae::Resnet CogVideoXVae::MakeResnet(const WeightScope& scope, int64_t in, int64_t out,
                                              bool is_decoder) const {
  const auto conv = [&](const char* name, int64_t from) {
    return CausalConv3d(scope.Sub(name).Sub("conv"), {.in_channels = from, .out_channels = out});
  };
  Resnet resnet = {.norm1 = MakeNorm(scope.Sub("norm1"), in, is_decoder),
                   .norm2 = MakeNorm(scope.Sub("norm2"), out, is_decoder),
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
    auto network = std::make_unique<Network>(
        Network{.is_decoder = is_decoder,
                .conv_in = conv("conv_in", in, channels.front()),
                .blocks = {},
                .norm_out = MakeNorm(scope.Sub("norm_out"), channels.back(), is_decoder),
                .conv_out = conv("conv_out", channels.back(), out)});
    const auto add = [&](const WeightScope& block, int layers, int64_t from, int64_t to) {
      Block& built = network->blocks.emplace_back();
      for (int i = 0; i < layers; ++i) {
        built.resnets.push_back(
            MakeResnet(block.Sub("resnets", i).InOwnGroup(), i == 0 ? from : to, to, is_decoder));
      }
    };
    const auto add_mid = [&](int64_t width) {
      add(scope.Sub("mid_block"), /*layers=*/2, width, width);
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

at::Tensor CogVideoXVae::NormConv(const Norm& norm, const CausalConv3d& conv,
                                  CausalConv3d::State& state, at::Tensor frames,
                                  const at::Tensor& latents) const {
  CausalConv3d::Window window = conv.Open(state, frames.sizes(), frames.options(), /*last=*/false);
  NearestModulation modulation;
  if (norm.scale) {
    const auto of_latents = [&](const WeightAndBias& layer) {
      return Conv3d(latents, layer.weight.get(), layer.bias.get(), {});
    };
    modulation = {.scale = of_latents(*norm.scale), .shift = of_latents(*norm.shift)};
  }
  GroupNormModulateSilu(frames,
                        {.groups = config_.norm_num_groups,
                         .eps = CogVideoXVaeConfig::kNormEps,
                         .weight = norm.norm.weight.get(),
                         .bias = norm.norm.bias.get()},
                        modulation, window.Fresh());
  frames.reset();
  return conv.Close(state, std::move(window), /*last=*/false);
}

at::Tensor CogVideoXVae::Push(const Resnet& resnet, Resnet::State& state, at::Tensor frames,
                              const at::Tensor& latents) const {
  at::Tensor hidden = NormConv(resnet.norm1, resnet.conv1, state.conv1, frames, latents);
  hidden = NormConv(resnet.norm2, resnet.conv2, state.conv2, std::move(hidden), latents);
  if (resnet.shortcut)
    frames = Conv3d(frames, resnet.shortcut->weight.get(), resnet.shortcut->bias.get(), {});
  return hidden.add_(frames);
}

FrameChain CogVideoXVae::Begin(const Network& network, int64_t frame_count) const {
  FrameChain chain;
  const int64_t batch = network.is_decoder ? kLatentBatch : kFrameBatch;
  const int64_t first = frame_count < batch ? frame_count : batch + frame_count % batch;
  // What the decoder's norms see: the batch of latents that is on its way.
  auto latents = std::make_shared<at::Tensor>();
  chain.Add(
      [this, &network, latents, state = CausalConv3d::State()](at::Tensor frames,
                                                               bool last) mutable {
        if (network.is_decoder) {
          *latents = frames;
        } else {
          frames = PixelsOf(frames, at::TensorOptions(device()).dtype(dtype()));
        }
        return network.conv_in.Push(state, std::move(frames), last);
      },
      batch, /*least=*/1, first);
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
      [this, &network, latents, state = CausalConv3d::State()](at::Tensor frames, bool) mutable {
        return NormConv(network.norm_out, network.conv_out, state, std::move(frames), *latents);
      },
      kWholeBatch);
  return chain;
}

std::unique_ptr<DecodeStream> CogVideoXVae::Decode(const at::Tensor& latents,
                                                   const std::optional<VaeTiling>& tiling) const {
  std::optional<TileGrid> grid;
  const int64_t ratio = config_.spatial_ratio();
  if (tiling) grid = OverlappingTiles(config_.tile_sizes(), *tiling).DecodeGrid(ratio);
  const BeginDecode begin = [&](int64_t, int64_t, int64_t) {
    return Begin(*decoder_, latents.size(2));
  };
  return DecodeInTiles(begin, latents, grid, ratio);
}

at::Tensor CogVideoXVae::Encode(const at::Tensor& video, const std::optional<VaeTiling>& tiling,
                                const RunContext& context) const {
  const int64_t height = video.size(1), width = video.size(2), ratio = config_.spatial_ratio();
  const auto encode = [&](int64_t y, int64_t part_height, int64_t x, int64_t part_width) {
    FrameChain chain = Begin(*encoder_, video.size(0));
    chain.Push(video.narrow(1, y, part_height).narrow(2, x, part_width), /*last=*/true);
    std::vector<at::Tensor> moments;
    chain.Drain(context, moments);
    return at::cat(moments).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
  };
  if (!tiling) return encode(0, height, 0, width);
  const OverlappingTiles tiles(config_.tile_sizes(), *tiling);
  return EncodeInTiles(encode, height, width, tiles.PixelGrid(), tiles.LatentGrid(ratio), ratio);
}

}  // namespace kino::engine
