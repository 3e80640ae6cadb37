#include "engine/models/ltx/vae_tiling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"

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
  WholeStream(const LtxVaeDecoder& decoder, at::Tensor latents, const LtxVaeDecodeOptions& options)
      : decoder_(decoder),
        latents_(std::move(latents)),
        frames_per_push_(options.latent_frames_per_push),
        state_(decoder.Start(latents_.size(3), latents_.size(4), options.timestep,
                             options.noise_generator, latents_.options())) {}

  bool done() const override { return next_ == latents_.size(2); }
  at::Tensor NextFrames(const RunContext& context) override {
    const int64_t count = std::min<int64_t>(frames_per_push_, latents_.size(2) - next_);
    const at::Tensor run = latents_.narrow(2, next_, count);
    next_ += count;
    return decoder_.Push(state_, run, done(), context);
  }

 private:
  const LtxVaeDecoder& decoder_;
  at::Tensor latents_;
  int64_t frames_per_push_;
  LtxVaeDecoder::State state_;
  int64_t next_ = 0;
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
    for (int64_t y = 0; y < latents.size(3); y += grid_.stride_height / ratio) {
      std::vector<WholeStream>& row = rows_.emplace_back();
      for (int64_t x = 0; x < latents.size(4); x += grid_.stride_width / ratio) {
        row.emplace_back(
            decoder,
            Slice(Slice(latents, 3, y, grid_.min_height / ratio), 4, x, grid_.min_width / ratio),
            options);
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
                                                  const LtxVaeConfig& config, at::Tensor latents,
                                                  const LtxVaeDecodeOptions& options) {
  if (TilesInSpace(options.tiling, config, latents)) {
    return std::make_unique<SpatialTileStream>(decoder, config, latents, options);
  }
  return std::make_unique<WholeStream>(decoder, std::move(latents), options);
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
    if (previous_.defined()) {
      tile = tile.narrow(0, 0, tile.size(0) - 1);
      Blend(previous_, tile, kFrameAxes.t, tiling.tile_sample_min_num_frames - stride);
    } else {
      ++stride;
    }
    at::Tensor out = Slice(tile, 0, 0, std::min(stride, frames_left_));
    frames_left_ -= out.size(0);
    next_ += tiling.tile_sample_stride_num_frames / config_.temporal_compression_ratio;
    if (next_ >= latents_.size(2)) frames_left_ = 0;
    previous_ = std::move(tile);
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
  at::Tensor previous_;
};

// Through the video a run of frames at a time.
at::Tensor EncodeWhole(const LtxVaeEncoder& encoder, const at::Tensor& video, int frames_per_push,
                       const RunContext& context) {
  LtxVaeEncoder::State state = encoder.Start();
  std::vector<at::Tensor> moments;
  for (int64_t next = 0; next < video.size(2); next += frames_per_push) {
    const at::Tensor run = Slice(video, 2, next, frames_per_push);
    at::Tensor known = encoder.Push(state, run, next + frames_per_push >= video.size(2), context);
    if (known.defined()) moments.push_back(std::move(known));
  }
  return moments.size() == 1 ? moments[0] : at::cat(moments, 2);
}

at::Tensor EncodeUntiledInTime(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                               const at::Tensor& video, const LtxVaeTiling& tiling,
                               int frames_per_push, const RunContext& context) {
  if (!tiling.use_tiling || (video.size(4) <= tiling.tile_sample_min_width &&
                             video.size(3) <= tiling.tile_sample_min_height)) {
    return EncodeWhole(encoder, video, frames_per_push, context);
  }
  std::vector<std::vector<at::Tensor>> rows;
  for (int64_t y = 0; y < video.size(3); y += tiling.tile_sample_stride_height) {
    rows.emplace_back();
    for (int64_t x = 0; x < video.size(4); x += tiling.tile_sample_stride_width) {
      const at::Tensor tile = Slice(Slice(video, 3, y, tiling.tile_sample_min_height), 4, x,
                                    tiling.tile_sample_min_width);
      rows.back().push_back(EncodeWhole(encoder, tile, frames_per_push, context));
    }
  }
  const int64_t ratio = config.spatial_compression_ratio;
  const TileGrid grid = {
      tiling.tile_sample_min_height / ratio, tiling.tile_sample_min_width / ratio,
      tiling.tile_sample_stride_height / ratio, tiling.tile_sample_stride_width / ratio};
  return JoinTiles(rows, grid, kMomentAxes, video.size(3) / ratio, video.size(4) / ratio);
}

at::Tensor EncodeTiledInTime(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                             const at::Tensor& video, const LtxVaeTiling& tiling,
                             int frames_per_push, const RunContext& context) {
  const int64_t ratio = config.temporal_compression_ratio;
  const int64_t stride = tiling.tile_sample_stride_num_frames, latent_stride = stride / ratio;
  std::vector<at::Tensor> joined;
  at::Tensor previous;
  for (int64_t next = 0; next < video.size(2); next += stride) {
    const at::Tensor frames = Slice(video, 2, next, tiling.tile_sample_min_num_frames + 1);
    at::Tensor tile =
        EncodeUntiledInTime(encoder, config, frames, tiling, frames_per_push, context);
    if (next > 0) {
      tile = tile.narrow(2, 1, tile.size(2) - 1);
      Blend(previous, tile, kMomentAxes.t,
            tiling.tile_sample_min_num_frames / ratio - latent_stride);
    }
    joined.push_back(Slice(tile, 2, 0, next > 0 ? latent_stride : latent_stride + 1));
    previous = tile;
  }
  return Slice(at::cat(joined, 2), 2, 0, (video.size(2) - 1) / ratio + 1);
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
  if (!frames.defined() || frames.size(0) == 0) return {};
  return frames.permute({3, 0, 1, 2}).unsqueeze(0);
}

std::unique_ptr<LtxVaeDecodeStream> LtxVaeDecode(const LtxVaeDecoder& decoder,
                                                 const LtxVaeConfig& config, at::Tensor latents,
                                                 const LtxVaeDecodeOptions& options) {
  ThrowIfError(options.tiling.Check(config));
  TORCH_CHECK(options.latent_frames_per_push >= 1,
              "latent frames per push: ", options.latent_frames_per_push);
  const int64_t tile_frames =
      options.tiling.tile_sample_min_num_frames / config.temporal_compression_ratio;
  if (options.tiling.use_framewise_decoding && latents.size(2) > tile_frames) {
    return std::make_unique<FramewiseStream>(decoder, config, std::move(latents), options);
  }
  return UntiledInTime(decoder, config, std::move(latents), options);
}

at::Tensor LtxVaeEncode(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                        const at::Tensor& video, const LtxVaeTiling& tiling, int frames_per_push,
                        const RunContext& context) {
  ThrowIfError(tiling.Check(config));
  ThrowIfError(CheckMultiples(config, tiling));
  if (tiling.use_framewise_decoding && video.size(2) > tiling.tile_sample_min_num_frames) {
    return EncodeTiledInTime(encoder, config, video, tiling, frames_per_push, context);
  }
  return EncodeUntiledInTime(encoder, config, video, tiling, frames_per_push, context);
}

}  // namespace kino::engine
