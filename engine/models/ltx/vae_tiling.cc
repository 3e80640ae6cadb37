#include "engine/models/ltx/vae_tiling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"

namespace kino::engine {
namespace {

// Axes of decoded frames [T, H, W, 3], and of moments [1, 2C, F, h, w].
struct Axes {
  int64_t t, h, w;
};
constexpr Axes kFrameAxes = {.t = 0, .h = 1, .w = 2};
constexpr Axes kMomentAxes = {.t = 2, .h = 3, .w = 4};

// b[i] = a[i - extent] * (1 - i / extent) + b[i] * (i / extent) along `axis`, in place. One line at
// a time, in diffusers' order of rounding.
void Blend(const at::Tensor& a, at::Tensor& b, int64_t axis, int64_t extent) {
  extent = std::min({a.size(axis), b.size(axis), extent});
  for (int64_t i = 0; i < extent; ++i) {
    const double weight = static_cast<double>(i) / static_cast<double>(extent);
    at::Tensor line = b.select(axis, i);
    line.mul_(weight).add_(a.select(axis, a.size(axis) - extent + i) * (1 - weight));
  }
}

// x[begin : begin + count] along `axis`, cut at the end.
at::Tensor Slice(const at::Tensor& x, int64_t axis, int64_t begin, int64_t count) {
  return x.narrow(axis, begin, std::clamp<int64_t>(count, 0, x.size(axis) - begin));
}

struct TileGrid {
  int64_t min_height, min_width, stride_height, stride_width;
};

// Blends each tile with the one above and the one to the left, as they are after their own
// blending, and joins the tiles' first strides; the result is cut to height x width. Uses up the
// tiles.
at::Tensor JoinTiles(std::vector<std::vector<at::Tensor>>& rows, const TileGrid& grid,
                     const Axes& axes, int64_t height, int64_t width) {
  std::vector<int64_t> shape = rows[0][0].sizes().vec();
  shape[axes.h] = height;
  shape[axes.w] = width;
  at::Tensor joined = at::empty(shape, rows[0][0].options());
  int64_t y = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    int64_t x = 0;
    for (size_t j = 0; j < rows[i].size(); ++j) {
      at::Tensor& tile = rows[i][j];
      if (i > 0) Blend(rows[i - 1][j], tile, axes.h, grid.min_height - grid.stride_height);
      if (j > 0) Blend(rows[i][j - 1], tile, axes.w, grid.min_width - grid.stride_width);
      const int64_t used_height = std::min({grid.stride_height, tile.size(axes.h), height - y});
      const int64_t used_width = std::min({grid.stride_width, tile.size(axes.w), width - x});
      if (used_height > 0 && used_width > 0) {
        joined.narrow(axes.h, y, used_height)
            .narrow(axes.w, x, used_width)
            .copy_(tile.narrow(axes.h, 0, used_height).narrow(axes.w, 0, used_width));
      }
      x += std::max<int64_t>(used_width, 0);
    }
    y += std::max<int64_t>(std::min(grid.stride_height, rows[i][0].size(axes.h)), 0);
    if (i > 0) rows[i - 1].clear();
  }
  return joined;
}

// One video, or one tile of it.
class WholeStream final : public LtxVaeDecodeStream {
 public:
  // latents: a tile of a video whose largest tile's frames have `run_positions` latents.
  WholeStream(const LtxVaeDecoder& decoder, const at::Tensor& latents, int64_t run_positions,
              const LtxVaeDecodeOptions& options)
      : chain_(decoder.Begin({.height = latents.size(3),
                              .width = latents.size(4),
                              .run_positions = run_positions,
                              .runs = options.runs.value_or(RunLengthOn(latents.device())),
                              .timestep = options.timestep,
                              .noise_generator = options.noise_generator,
                              .options = latents.options()})) {
    chain_.Push(latents.squeeze(0).permute({1, 2, 3, 0}), /*last=*/true);
  }

  bool done() const override { return chain_.done(); }
  at::Tensor NextFrames(const RunContext& context) override { return chain_.Next(context); }

 private:
  FrameChain chain_;
};

// Tiles in space that advance through time together.
class SpatialTileStream final : public LtxVaeDecodeStream {
 public:
  SpatialTileStream(const LtxVaeDecoder& decoder, const LtxVaeConfig& config,
                    const at::Tensor& latents, const LtxVaeDecodeOptions& options)
      : height_(latents.size(3) * config.spatial_compression_ratio),
        width_(latents.size(4) * config.spatial_compression_ratio),
        grid_{options.tiling.tile_sample_min_height, options.tiling.tile_sample_min_width,
              options.tiling.tile_sample_stride_height, options.tiling.tile_sample_stride_width} {
    const int64_t ratio = config.spatial_compression_ratio;
    const int64_t tile_height = grid_.min_height / ratio, tile_width = grid_.min_width / ratio;
    const int64_t run_positions =
        std::min(tile_height, latents.size(3)) * std::min(tile_width, latents.size(4));
    for (int64_t y = 0; y < latents.size(3); y += grid_.stride_height / ratio) {
      std::vector<WholeStream>& row = rows_.emplace_back();
      for (int64_t x = 0; x < latents.size(4); x += grid_.stride_width / ratio) {
        row.emplace_back(decoder, Slice(Slice(latents, 3, y, tile_height), 4, x, tile_width),
                         run_positions, options);
      }
    }
  }

  bool done() const override { return rows_[0][0].done(); }
  at::Tensor NextFrames(const RunContext& context) override {
    std::vector<std::vector<at::Tensor>> tiles;
    for (std::vector<WholeStream>& row : rows_) {
      tiles.emplace_back();
      for (WholeStream& tile : row) tiles.back().push_back(tile.NextFrames(context));
    }
    if (!tiles[0][0].defined()) return {};
    return JoinTiles(tiles, grid_, kFrameAxes, height_, width_);
  }

 private:
  int64_t height_, width_;
  TileGrid grid_;
  std::vector<std::vector<WholeStream>> rows_;
};

bool TilesInSpace(const LtxVaeTiling& tiling, const LtxVaeConfig& config,
                  const at::Tensor& latents) {
  const int64_t ratio = config.spatial_compression_ratio;
  return tiling.use_tiling && (latents.size(4) > tiling.tile_sample_min_width / ratio ||
                               latents.size(3) > tiling.tile_sample_min_height / ratio);
}

std::unique_ptr<LtxVaeDecodeStream> UntiledInTime(const LtxVaeDecoder& decoder,
                                                  const LtxVaeConfig& config,
                                                  const at::Tensor& latents,
                                                  const LtxVaeDecodeOptions& options) {
  if (TilesInSpace(options.tiling, config, latents)) {
    return std::make_unique<SpatialTileStream>(decoder, config, latents, options);
  }
  return std::make_unique<WholeStream>(decoder, latents, latents.size(3) * latents.size(4),
                                       options);
}

// Tiles in time, one after the other. A tile's frames are final once it is blended with the one
// before.
class FramewiseStream final : public LtxVaeDecodeStream {
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
      tile_ = UntiledInTime(decoder_, config_, Slice(latents_, 2, next_, count), options_);
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
      Blend(overlap_, tile, kFrameAxes.t, overlap);
    } else {
      ++stride;
    }
    const int64_t kept = std::min(overlap, tile.size(0));
    overlap_ = tile.narrow(0, tile.size(0) - kept, kept).clone();
    at::Tensor out = Slice(tile, 0, 0, std::min(stride, frames_left_));
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
  std::unique_ptr<LtxVaeDecodeStream> tile_;
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
    // Bytes become floats where they are, on the host, as diffusers' VideoProcessor does it.
    if (pixels.scalar_type() == at::kByte)
      pixels = pixels.to(at::kFloat).div_(255.0).mul_(2.0).sub_(1.0);
    return pixels.to(options).contiguous();
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
    for (;;) {
      at::Tensor known = chain.Next(context);
      if (!known.defined()) break;
      moments.push_back(std::move(known));
    }
  }
  return at::cat(moments).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
}

at::Tensor EncodeUntiledInTime(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                               const VideoPart& video, const LtxVaeTiling& tiling,
                               const RunLength& runs, const RunContext& context) {
  if (!tiling.use_tiling || (video.width <= tiling.tile_sample_min_width &&
                             video.height <= tiling.tile_sample_min_height)) {
    return EncodeWhole(encoder, video, runs, context);
  }
  std::vector<std::vector<at::Tensor>> rows;
  for (int64_t y = 0; y < video.height; y += tiling.tile_sample_stride_height) {
    rows.emplace_back();
    for (int64_t x = 0; x < video.width; x += tiling.tile_sample_stride_width) {
      const VideoPart tile =
          video.Tile(y, tiling.tile_sample_min_height, x, tiling.tile_sample_min_width);
      rows.back().push_back(EncodeWhole(encoder, tile, runs, context));
    }
  }
  const int64_t ratio = config.spatial_compression_ratio;
  const TileGrid grid = {
      tiling.tile_sample_min_height / ratio, tiling.tile_sample_min_width / ratio,
      tiling.tile_sample_stride_height / ratio, tiling.tile_sample_stride_width / ratio};
  return JoinTiles(rows, grid, kMomentAxes, video.height / ratio, video.width / ratio);
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
      Blend(previous, tile, kMomentAxes.t,
            tiling.tile_sample_min_num_frames / ratio - latent_stride);
    }
    joined.push_back(Slice(tile, 2, 0, next > 0 ? latent_stride : latent_stride + 1));
    previous = tile;
  }
  return Slice(at::cat(joined, 2), 2, 0, (video.frames - 1) / ratio + 1);
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

at::Tensor LtxVaeDecodeStream::Next(const RunContext& context) {
  const at::Tensor frames = NextFrames(context);
  if (!frames.defined()) return {};
  return frames.permute({3, 0, 1, 2}).unsqueeze(0);
}

std::unique_ptr<LtxVaeDecodeStream> LtxVaeDecode(const LtxVaeDecoder& decoder,
                                                 const LtxVaeConfig& config, at::Tensor latents,
                                                 const LtxVaeDecodeOptions& options) {
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
