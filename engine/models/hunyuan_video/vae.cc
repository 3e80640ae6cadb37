#include "engine/models/hunyuan_video/vae.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/functional/function_ref.h"
#include "engine/nn/run_length.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/norm_silu.h"
#include "engine/ops/resample_frames.h"

namespace kino::engine {
namespace {

// Each layer takes a whole clip.
constexpr int64_t kWholeClip = std::numeric_limits<int64_t>::max();

// Writes what a convolution takes of a clip's frames [first, first + count).
using Fill = absl::FunctionRef<void(int64_t first, int64_t count, const at::Tensor& into)>;
// Is given the frames that come out, from `first` on.
using Take = absl::FunctionRef<void(int64_t first, const at::Tensor& frames)>;

// Over a clip of this shape, [T, H, W, C], in runs of about equally many frames, one by one: `take`
// may write over the frames that its run was filled from.
void ConvolveInRuns(const CausalConv3d& conv, at::IntArrayRef shape, const at::TensorOptions& like,
                    Fill fill, Take take) {
  const int64_t most = RunLengthOn(like.device()).Frames(shape[1] * shape[2] * conv.widest_side());
  const int64_t runs = (shape[0] + most - 1) / most, at_once = (shape[0] + runs - 1) / runs;
  CausalConv3d::State state;
  int64_t given = 0;
  for (int64_t first = 0; first < shape[0]; first += at_once) {
    const int64_t count = std::min(at_once, shape[0] - first);
    const bool last = first + count == shape[0];
    CausalConv3d::Window window =
        conv.Open(state, {count, shape[1], shape[2], shape[3]}, like, last);
    fill(first, count, window.Fresh());
    const at::Tensor frames = conv.Close(state, std::move(window), last);
    take(given, frames);
    given += frames.size(0);
  }
}

// The same, to a clip of so many frames.
at::Tensor Convolve(const CausalConv3d& conv, at::IntArrayRef shape, const at::TensorOptions& like,
                    int64_t out_frames, Fill fill) {
  at::Tensor out;
  ConvolveInRuns(conv, shape, like, fill, [&](int64_t first, const at::Tensor& frames) {
    if (frames.size(0) == out_frames) {
      out = frames;
      return;
    }
    if (!out.defined())
      out = at::empty({out_frames, frames.size(1), frames.size(2), frames.size(3)}, like);
    out.narrow(0, first, frames.size(0)).copy_(frames);
  });
  return out;
}

at::Tensor Convolve(const CausalConv3d& conv, const at::Tensor& clip, int64_t out_frames) {
  return Convolve(conv, clip.sizes(), clip.options(), out_frames,
                  [&](int64_t first, int64_t count, const at::Tensor& into) {
                    into.copy_(clip.narrow(0, first, count));
                  });
}

// Fills with SiLU(GroupNorm(clip)), the norm over the whole clip, which is taken here.
class NormSilu {
 public:
  NormSilu(const WeightAndBias& norm, int64_t groups, const at::Tensor& clip)
      : clip_(clip),
        affine_(GroupNormAffine(clip.flatten(0, 1).unsqueeze(0),
                                {.groups = groups,
                                 .eps = HunyuanVideoVaeConfig::kNormEps,
                                 .weight = norm.weight.get(),
                                 .bias = norm.bias.get()})) {}
  void operator()(int64_t first, int64_t count, const at::Tensor& into) const {
    AffineSilu(clip_.narrow(0, first, count), affine_, into);
  }

 private:
  const at::Tensor& clip_;
  at::Tensor affine_;
};

at::Tensor Pointwise(const WeightAndBias& layer, const at::Tensor& frames) {
  return Conv3d(frames, layer.weight.get(), layer.bias.get(), {});
}

CausalConv3d MakeConv(const WeightScope& scope, int64_t in, int64_t out,
                      const Stride3d& stride = {}) {
  return CausalConv3d(
      scope.Sub("conv"),
      {.in_channels = in, .out_channels = out, .stride = stride, .repeats_edges = true});
}

WeightAndBias PointwiseWeights(const WeightScope& scope, int64_t in, int64_t out) {
  return scope.WithBias({out, in, 1, 1, 1}, LayerKind::kConvolution);
}

// Sides doubled, and, if so said, all frames but the first; then convolved.
at::Tensor Upsample(const CausalConv3d& conv, const at::Tensor& clip, bool in_time) {
  const int64_t frames = in_time ? 2 * clip.size(0) - 1 : clip.size(0);
  return Convolve(conv, {frames, 2 * clip.size(1), 2 * clip.size(2), clip.size(3)}, clip.options(),
                  frames, [&](int64_t first, int64_t count, const at::Tensor& into) {
                    for (int64_t i = 0; i < count; ++i) {
                      const int64_t from = in_time ? (first + i + 1) / 2 : first + i;
                      DoubleNearestInto(clip.narrow(0, from, 1), 1, into.narrow(0, i, 1));
                    }
                  });
}

// By the convolution's stride.
at::Tensor Downsample(const CausalConv3d& conv, const at::Tensor& clip, bool in_time) {
  return Convolve(conv, clip, in_time ? (clip.size(0) + 1) / 2 : clip.size(0));
}

}  // namespace

HunyuanVideoVae::Resnet::Resnet(const WeightScope& scope, int64_t in, int64_t out)
    : norm1(scope.Sub("norm1").WithBias({in})),
      norm2(scope.Sub("norm2").WithBias({out})),
      conv1(MakeConv(scope.Sub("conv1"), in, out)),
      conv2(MakeConv(scope.Sub("conv2"), out, out)) {
  if (in != out) shortcut = PointwiseWeights(scope.Sub("conv_shortcut").Sub("conv"), in, out);
}

at::Tensor HunyuanVideoVae::Resnet::Apply(const at::Tensor& clip, int64_t groups) const {
  const at::Tensor hidden =
      Convolve(conv1, clip.sizes(), clip.options(), clip.size(0), NormSilu(norm1, groups, clip));
  // Over what it comes from: a clip at full size is large.
  ConvolveInRuns(conv2, hidden.sizes(), hidden.options(), NormSilu(norm2, groups, hidden),
                 [&](int64_t first, const at::Tensor& frames) {
                   const at::Tensor part = clip.narrow(0, first, frames.size(0));
                   frames.add_(shortcut ? Pointwise(*shortcut, part) : part);
                   hidden.narrow(0, first, frames.size(0)).copy_(frames);
                 });
  return hidden;
}

HunyuanVideoVae::HunyuanVideoVae(const HunyuanVideoVaeConfig& config, const ComponentFiles& files,
                                 c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device),
      config_(config),
      encoder_(MakeNetwork("encoder", "quant_conv", /*is_decoder=*/false)),
      decoder_(MakeNetwork("decoder", "post_quant_conv", /*is_decoder=*/true)) {}

HunyuanVideoVae::Network HunyuanVideoVae::MakeNetwork(const char* name, const char* quant,
                                                      bool is_decoder) {
  const WeightScope whole(weights(), weights().AddGroup(name, name)), scope = whole.Sub(name);
  std::vector<int> channels = config_.block_out_channels;
  if (is_decoder) std::reverse(channels.begin(), channels.end());
  const int64_t latent = is_decoder ? config_.latent_channels : 2 * config_.latent_channels;
  const int64_t first = channels.front(), last = channels.back();
  Network network = {.is_decoder = is_decoder,
                     .quant = PointwiseWeights(whole.Sub(quant), latent, latent),
                     .conv_in = MakeConv(scope.Sub("conv_in"), is_decoder ? latent : 3, first),
                     .blocks = {},
                     .norm_out = scope.Sub("conv_norm_out").WithBias({last}),
                     .conv_out = MakeConv(scope.Sub("conv_out"), last, is_decoder ? 3 : latent)};
  const auto add = [&](const WeightScope& block, int layers, int64_t in, int64_t out) -> Block& {
    Block& built = network.blocks.emplace_back();
    for (int i = 0; i < layers; ++i) {
      built.resnets.emplace_back(block.Sub("resnets", i).InOwnGroup(), i == 0 ? in : out, out);
    }
    return built;
  };
  const auto add_middle = [&](int64_t width) {
    const WeightScope middle = scope.Sub("mid_block");
    Block& block = add(middle, /*layers=*/2, width, width);
    if (!config_.mid_block_add_attention) return;
    block.attention.emplace(middle.Sub("attentions", 0).InOwnGroup(), width,
                            GroupNorm::Options{.groups = config_.norm_num_groups,
                                               .eps = HunyuanVideoVaeConfig::kNormEps},
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
    built.resampler = MakeConv(block.Sub(resamplers, 0).InOwnGroup().Sub("conv"), to, to, stride);
  }
  if (!is_decoder) add_middle(last);
  return network;
}

FrameChain HunyuanVideoVae::Begin(const Network& network) const {
  const int64_t groups = config_.norm_num_groups;
  FrameChain chain;
  const auto add = [&chain](auto layer) {
    chain.Add([layer](const at::Tensor& clip, bool) { return layer(clip); }, kWholeClip);
  };
  add([&network](const at::Tensor& clip) {
    const at::Tensor in = network.is_decoder ? Pointwise(network.quant, clip.contiguous()) : clip;
    return Convolve(network.conv_in, in, in.size(0));
  });
  for (const Block& block : network.blocks) {
    for (const Resnet& resnet : block.resnets) {
      add([&resnet, groups](const at::Tensor& clip) { return resnet.Apply(clip, groups); });
      if (&resnet == &block.resnets.front() && block.attention)
        add([&block](const at::Tensor& clip) { return block.attention->Apply(clip); });
    }
    if (!block.resampler) continue;
    add([&block, resample = network.is_decoder ? Upsample : Downsample](const at::Tensor& clip) {
      return resample(*block.resampler, clip, block.resamples_time);
    });
  }
  add([&network, groups](const at::Tensor& clip) {
    const at::Tensor out = Convolve(network.conv_out, clip.sizes(), clip.options(), clip.size(0),
                                    NormSilu(network.norm_out, groups, clip));
    return network.is_decoder ? out : Pointwise(network.quant, out);
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
  TORCH_CHECK(video.frames > 0 && video.height > 0 && video.width > 0 &&
                  video.height % ratio == 0 && video.width % ratio == 0,
              "cannot encode a video of ", video.frames, " frames, ", video.height, "x",
              video.width, " pixels, expected multiples of ", ratio);
  const VaeTileSizes sizes = config_.tile_sizes();
  const auto encode_clip = [&](int64_t first, int64_t count) {
    const at::Tensor pixels =
        PixelsOf(video.read(first, count), at::TensorOptions(device()).dtype(dtype()));
    const auto encode_tile = [&](int64_t y, int64_t height, int64_t x, int64_t width) {
      FrameChain chain = Begin(encoder_);
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
