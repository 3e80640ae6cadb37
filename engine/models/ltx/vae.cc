#include "engine/models/ltx/vae.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace kino::engine {
namespace {

// A request's tiles: in space, and in time if it says so.
struct Tiles {
  explicit Tiles(const std::optional<VaeTiling>& request) : in_time(kLtxTiles.InTime(request)) {
    if (request) in_space = kLtxTiles.With(*request).grid();
  }
  std::optional<TileGrid> in_space;
  std::optional<TimeTiles> in_time;
};

}  // namespace

LtxVae::LtxVae(const LtxVaeConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
               c10::Device device)
    : Component(files, dtype, device),
      config_(config),
      encoder_(config,
               WeightScope(weights(), weights().AddGroup("encoder", "encoder")).Sub("encoder")),
      decoder_(config,
               WeightScope(weights(), weights().AddGroup("decoder", "decoder")).Sub("decoder")) {
  const WeightScope statistics(weights(), weights().AddGroup("statistics", "statistics"));
  latents_mean_ = statistics.Get("latents_mean", {config.latent_channels});
  latents_std_ = statistics.Get("latents_std", {config.latent_channels});
}

at::Tensor LtxVae::Encode(const VideoSource& video, const std::optional<VaeTiling>& tiling,
                          const RunContext& context, const std::optional<RunLength>& runs) const {
  const int64_t ratio = config_.spatial_compression_ratio;
  TORCH_CHECK(config_.in_channels == 3 && video.frames > 0 && video.height > 0 && video.width > 0 &&
                  video.height % ratio == 0 && video.width % ratio == 0,
              "cannot encode a video of ", video.frames, " frames, ", video.height, "x",
              video.width, " pixels, in ", config_.in_channels, " channels");
  const at::TensorOptions options = at::TensorOptions().dtype(dtype()).device(device());
  const Tiles tiles(tiling);
  const auto encode_clip = [&](int64_t first, int64_t frames) {
    // A run of frames at a time.
    const auto encode_tile = [&](int64_t y, int64_t height, int64_t x, int64_t width) {
      FrameChain chain = encoder_.Begin(height, width, runs.value_or(RunLengthOn(device())));
      std::vector<at::Tensor> moments;
      for (int64_t done = 0; done < frames; done += chain.first_run()) {
        const int64_t count = std::min(chain.first_run(), frames - done);
        const at::Tensor pixels = video.read(first + done, count);
        chain.Push(PixelsOf(pixels.narrow(1, y, height).narrow(2, x, width), options).contiguous(),
                   /*last=*/done + count == frames);
        chain.Drain(context, moments);
      }
      return at::cat(moments).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
    };
    if (!tiles.in_space) return encode_tile(0, video.height, 0, video.width);
    return EncodeInTiles(encode_tile, video.height, video.width, *tiles.in_space,
                         tiles.in_space->InLatents(ratio), ratio);
  };
  return EncodeInTimeTiles(encode_clip, video.frames, tiles.in_time,
                           config_.temporal_compression_ratio);
}

std::unique_ptr<DecodeStream> LtxVae::Decode(const at::Tensor& latents,
                                             const LtxVaeDecodeOptions& options) const {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 &&
                  latents.size(1) == config_.latent_channels && latents.size(2) > 0,
              "cannot decode latents of shape ", latents.sizes());
  const Tiles tiles(options.tiling);
  const auto decode_clip = [this, options, tiles](const at::Tensor& clip) {
    const BeginDecode begin = [&](int64_t height, int64_t width, int64_t run_positions) {
      return decoder_.Begin({.height = height,
                             .width = width,
                             .run_positions = run_positions,
                             .runs = options.runs.value_or(RunLengthOn(device())),
                             .timestep = options.timestep,
                             .noise_generator = options.noise_generator,
                             .options = clip.options()});
    };
    return DecodeInTiles(begin, clip, tiles.in_space, config_.spatial_compression_ratio);
  };
  return DecodeInTimeTiles(decode_clip, latents.to(dtype()), tiles.in_time,
                           config_.temporal_compression_ratio, SurplusFrame::kLast);
}

}  // namespace kino::engine
