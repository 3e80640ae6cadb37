#include "engine/models/ltx/vae_tiling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"
#include "engine/models/common/condition_frames.h"

namespace kino::engine {
namespace {

std::unique_ptr<DecodeStream> UntiledInTime(const LtxVaeDecoder& decoder,
                                            const LtxVaeConfig& config, const at::Tensor& latents,
                                            const LtxVaeDecodeOptions& options) {
  const BeginDecode begin = [&, at = latents.options()](int64_t height, int64_t width,
                                                        int64_t run_positions) {
    return decoder.Begin({.height = height,
                          .width = width,
                          .run_positions = run_positions,
                          .runs = options.runs.value_or(RunLengthOn(at.device())),
                          .timestep = options.timestep,
                          .noise_generator = options.noise_generator,
                          .options = at});
  };
  return DecodeInTiles(begin, latents, options.tiling.grid(), config.spatial_compression_ratio);
}

// Tiles in time, one after the other. A tile's frames are final once it is blended with the one
// before.
class FramewiseStream final : public DecodeStream {
 public:
  FramewiseStream(const LtxVaeDecoder& decoder, const LtxVaeConfig& config, at::Tensor latents,
                  const LtxVaeDecodeOptions& options)
      : decoder_(decoder),
        config_(config),
        latents_(std::move(latents)),
        options_(options),
        frames_left_((latents_.size(2) - 1) * config.temporal_compression_ratio + 1) {}

  bool done() const override { return frames_left_ == 0; }
  at::Tensor NextFrames(const RunContext& context) override {
    const int64_t ratio = config_.temporal_compression_ratio;
    if (tile_ == nullptr) {
      const int64_t count = options_.tiling.tile_sample_min_num_frames / ratio + 1;
      tile_ = UntiledInTime(decoder_, config_, TileSlice(latents_, 2, next_, count), options_);
    }
    at::Tensor frames = tile_->NextFrames(context);
    if (frames.defined()) decoded_.push_back(std::move(frames));
    if (!tile_->done()) return {};
    return Finish();
  }

 private:
  at::Tensor Finish() {
    const LtxVaeTiling& tiling = options_.tiling;
    at::Tensor tile = at::cat(decoded_);
    decoded_.clear();
    tile_.reset();
    int64_t stride = tiling.tile_sample_stride_num_frames;
    const int64_t overlap = tiling.tile_sample_min_num_frames - stride;
    if (overlap_.defined()) {
      tile = tile.narrow(0, 0, tile.size(0) - 1);
      BlendTiles(overlap_, tile, kFrameAxes.t, overlap);
    } else {
      ++stride;
    }
    const int64_t kept = std::min(overlap, tile.size(0));
    overlap_ = tile.narrow(0, tile.size(0) - kept, kept).clone();
    at::Tensor out = TileSlice(tile, 0, 0, std::min(stride, frames_left_));
    frames_left_ -= out.size(0);
    next_ += tiling.tile_sample_stride_num_frames / config_.temporal_compression_ratio;
    if (next_ >= latents_.size(2)) frames_left_ = 0;
    return out;
  }

  const LtxVaeDecoder& decoder_;
  const LtxVaeConfig& config_;
  at::Tensor latents_;
  LtxVaeDecodeOptions options_;
  int64_t frames_left_;
  int64_t next_ = 0;  // latent frame the next tile starts at
  std::unique_ptr<DecodeStream> tile_;
  std::vector<at::Tensor> decoded_;
  at::Tensor overlap_;  // the last tile's last frames, which the next one's first are blended with
};

// A part of the video, in time and space.
struct VideoPart {
  const LtxVideoSource& source;
  const at::TensorOptions& options;  // of what is encoded
  int64_t first, frames, y, height, x, width;

  VideoPart Frames(int64_t begin, int64_t count) const {
    VideoPart part = *this;
    part.first = first + begin;
    part.frames = std::min(count, frames - begin);
    return part;
  }
  VideoPart Tile(int64_t top, int64_t tile_height, int64_t left, int64_t tile_width) const {
    VideoPart part = *this;
    part.y = y + top;
    part.height = std::min(tile_height, height - top);
    part.x = x + left;
    part.width = std::min(tile_width, width - left);
    return part;
  }
  // [count, height, width, 3] in -1..1.
  at::Tensor Read(int64_t begin, int64_t count) const {
    at::Tensor pixels = source.read(first + begin, count);
    TORCH_CHECK(pixels.size(0) == count && pixels.size(1) == source.height &&
                    pixels.size(2) == source.width && pixels.size(3) == 3,
                "the video's frames are ", pixels.sizes());
    pixels = pixels.narrow(1, y, height).narrow(2, x, width);
    pixels = pixels.scalar_type() == at::kByte ? PixelsOf(pixels, options) : pixels.to(options);
    return pixels.contiguous();
  }
};

// Through the video a run of frames at a time.
at::Tensor EncodeWhole(const LtxVaeEncoder& encoder, const VideoPart& video, const RunLength& runs,
                       const RunContext& context) {
  FrameChain chain = encoder.Begin(video.height, video.width, runs);
  std::vector<at::Tensor> moments;
  for (int64_t next = 0; next < video.frames; next += chain.first_run()) {
    const int64_t count = std::min(chain.first_run(), video.frames - next);
    chain.Push(video.Read(next, count), /*last=*/next + count == video.frames);
    chain.Drain(context, moments);
  }
  return at::cat(moments).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
}

at::Tensor EncodeUntiledInTime(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                               const VideoPart& video, const LtxVaeTiling& tiling,
                               const RunLength& runs, const RunContext& context) {
  if (!tiling.use_tiling) return EncodeWhole(encoder, video, runs, context);
  const int64_t ratio = config.spatial_compression_ratio;
  const TileGrid grid = {
      tiling.tile_sample_min_height / ratio, tiling.tile_sample_min_width / ratio,
      tiling.tile_sample_stride_height / ratio, tiling.tile_sample_stride_width / ratio};
  const auto encode = [&](int64_t y, int64_t height, int64_t x, int64_t width) {
    return EncodeWhole(encoder, video.Tile(y, height, x, width), runs, context);
  };
  return EncodeInTiles(encode, video.height, video.width, *tiling.grid(), grid, ratio);
}

at::Tensor EncodeTiledInTime(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                             const VideoPart& video, const LtxVaeTiling& tiling,
                             const RunLength& runs, const RunContext& context) {
  const int64_t ratio = config.temporal_compression_ratio;
  const int64_t stride = tiling.tile_sample_stride_num_frames, latent_stride = stride / ratio;
  std::vector<at::Tensor> joined;
  at::Tensor previous;
  for (int64_t next = 0; next < video.frames; next += stride) {
    const VideoPart frames = video.Frames(next, tiling.tile_sample_min_num_frames + 1);
    at::Tensor tile = EncodeUntiledInTime(encoder, config, frames, tiling, runs, context);
    if (next > 0) {
      tile = tile.narrow(2, 1, tile.size(2) - 1);
      BlendTiles(previous, tile, kLatentAxes.t,
                 tiling.tile_sample_min_num_frames / ratio - latent_stride);
    }
    joined.push_back(TileSlice(tile, 2, 0, next > 0 ? latent_stride : latent_stride + 1));
    previous = tile;
  }
  return TileSlice(at::cat(joined, 2), 2, 0, (video.frames - 1) / ratio + 1);
}

absl::Status CheckMultiples(const LtxVaeConfig& config, const LtxVaeTiling& tiling) {
  const int64_t space = config.spatial_compression_ratio, time = config.temporal_compression_ratio;
  const bool space_fits =
      tiling.tile_sample_min_height % space == 0 && tiling.tile_sample_min_width % space == 0 &&
      tiling.tile_sample_stride_height % space == 0 && tiling.tile_sample_stride_width % space == 0;
  const bool time_fits = tiling.tile_sample_min_num_frames % time == 0 &&
                         tiling.tile_sample_stride_num_frames % time == 0;
  if ((space_fits || !tiling.use_tiling) && (time_fits || !tiling.use_framewise_decoding))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("to encode, VAE tiles and their strides must be multiples of ", space,
                   " pixels and ", time, " frames"));
}

}  // namespace

LtxVaeTiling LtxVaeTiling::Of(const std::optional<VaeTiling>& request) {
  LtxVaeTiling tiling;
  if (!request) return tiling;
  const VaeTileSizes sizes = kLtxTiles.With(*request);
  return {.use_tiling = true,
          .use_framewise_decoding = request->framewise,
          .tile_sample_min_height = sizes.min_height,
          .tile_sample_min_width = sizes.min_width,
          .tile_sample_min_num_frames = sizes.min_num_frames,
          .tile_sample_stride_height = sizes.stride_height,
          .tile_sample_stride_width = sizes.stride_width,
          .tile_sample_stride_num_frames = sizes.stride_num_frames};
}

std::optional<TileGrid> LtxVaeTiling::grid() const {
  if (!use_tiling) return std::nullopt;
  return TileGrid{tile_sample_min_height, tile_sample_min_width, tile_sample_stride_height,
                  tile_sample_stride_width};
}

absl::Status LtxVaeTiling::Check(const LtxVaeConfig& config) const {
  const auto check = [](const char* axis, int64_t tile, int64_t stride, int64_t ratio) {
    if (stride >= ratio && stride <= tile) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("VAE tiles of ", tile, " with a stride of ", stride, " in ", axis,
                     ": the stride must be from ", ratio, " to the tile's size"));
  };
  absl::Status status;
  if (use_tiling) {
    status.Update(check("height", tile_sample_min_height, tile_sample_stride_height,
                        config.spatial_compression_ratio));
    status.Update(check("width", tile_sample_min_width, tile_sample_stride_width,
                        config.spatial_compression_ratio));
  }
  if (use_framewise_decoding) {
    status.Update(check("frames", tile_sample_min_num_frames, tile_sample_stride_num_frames,
                        config.temporal_compression_ratio));
  }
  return status;
}

std::unique_ptr<DecodeStream> LtxVaeDecode(const LtxVaeDecoder& decoder, const LtxVaeConfig& config,
                                           at::Tensor latents, const LtxVaeDecodeOptions& options) {
  ThrowIfError(options.tiling.Check(config));
  const int64_t tile_frames =
      options.tiling.tile_sample_min_num_frames / config.temporal_compression_ratio;
  if (options.tiling.use_framewise_decoding && latents.size(2) > tile_frames) {
    return std::make_unique<FramewiseStream>(decoder, config, std::move(latents), options);
  }
  return UntiledInTime(decoder, config, latents, options);
}

at::Tensor LtxVaeEncode(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                        const LtxVideoSource& video, const LtxVaeTiling& tiling,
                        const RunLength& runs, const at::TensorOptions& options,
                        const RunContext& context) {
  ThrowIfError(tiling.Check(config));
  ThrowIfError(CheckMultiples(config, tiling));
  const VideoPart whole = {.source = video,
                           .options = options,
                           .first = 0,
                           .frames = video.frames,
                           .y = 0,
                           .height = video.height,
                           .x = 0,
                           .width = video.width};
  if (tiling.use_framewise_decoding && video.frames > tiling.tile_sample_min_num_frames) {
    return EncodeTiledInTime(encoder, config, whole, tiling, runs, context);
  }
  return EncodeUntiledInTime(encoder, config, whole, tiling, runs, context);
}

}  // namespace kino::engine
