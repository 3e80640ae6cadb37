#include "engine/models/common/vae_tiles.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

// How long the joined tiles of so many pixels are. Those that begin a stride apart reach the end,
// and are cut there; with another step they may give more or less.
int64_t JoinedLength(int64_t length, int64_t tile, int64_t stride, int64_t step) {
  if (step == 0) return length;
  int64_t joined = 0;
  for (int64_t begin = 0; begin < length; begin += step)
    joined += std::min({stride, tile, length - begin});
  return joined;
}

// One video, or one tile of it.
class WholeStream final : public DecodeStream {
 public:
  WholeStream(const BeginDecode& begin, const at::Tensor& latents, int64_t run_positions)
      : chain_(begin(latents.size(3), latents.size(4), run_positions)) {
    chain_.Push(latents.squeeze(0).permute({1, 2, 3, 0}), /*last=*/true);
  }

  bool done() const override { return chain_.done(); }
  at::Tensor NextFrames(const RunContext& context) override { return chain_.Next(context); }

 private:
  FrameChain chain_;
};

// Tiles in space that advance through time together.
class SpatialTileStream final : public DecodeStream {
 public:
  SpatialTileStream(const BeginDecode& begin, const at::Tensor& latents, const TileGrid& grid,
                    int64_t ratio)
      : height_(JoinedLength(latents.size(3) * ratio, grid.min_height / ratio * ratio,
                             grid.stride_height, grid.step_height)),
        width_(JoinedLength(latents.size(4) * ratio, grid.min_width / ratio * ratio,
                            grid.stride_width, grid.step_width)),
        grid_(grid) {
    const int64_t tile_height = grid.min_height / ratio, tile_width = grid.min_width / ratio;
    const int64_t run_positions =
        std::min(tile_height, latents.size(3)) * std::min(tile_width, latents.size(4));
    for (int64_t y = 0; y < latents.size(3); y += grid.next_row() / ratio) {
      std::vector<WholeStream>& row = rows_.emplace_back();
      for (int64_t x = 0; x < latents.size(4); x += grid.next_column() / ratio) {
        row.emplace_back(begin, TileSlice(TileSlice(latents, 3, y, tile_height), 4, x, tile_width),
                         run_positions);
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

class TimeTileStream final : public DecodeStream {
 public:
  TimeTileStream(BeginClip begin, const at::Tensor& latents, const TimeTiles& tiles, int64_t ratio,
                 SurplusFrame surplus)
      : begin_(std::move(begin)),
        latents_(latents),
        tiles_(tiles),
        ratio_(ratio),
        surplus_(surplus),
        frames_left_((latents.size(2) - 1) * ratio + 1) {}

  bool done() const override { return frames_left_ == 0; }
  at::Tensor NextFrames(const RunContext& context) override {
    if (tile_ == nullptr)
      tile_ = begin_(TileSlice(latents_, kLatentAxes.t, next_, tiles_.frames / ratio_ + 1));
    at::Tensor frames = tile_->NextFrames(context);
    if (frames.defined()) decoded_.push_back(std::move(frames));
    if (!tile_->done()) return {};
    return FinishTile();
  }

 private:
  at::Tensor FinishTile() {
    at::Tensor tile = at::cat(decoded_);
    decoded_.clear();
    tile_.reset();
    int64_t kept = tiles_.stride;
    const int64_t overlap = tiles_.frames - tiles_.stride;
    if (overlap_.defined()) {
      tile = tile.narrow(kFrameAxes.t, surplus_ == SurplusFrame::kFirst ? 1 : 0, tile.size(0) - 1);
      BlendTiles(overlap_, tile, kFrameAxes.t, overlap);
    } else {
      ++kept;
    }
    const int64_t last = std::min(overlap, tile.size(0));
    overlap_ = tile.narrow(kFrameAxes.t, tile.size(0) - last, last).clone();
    at::Tensor out = TileSlice(tile, kFrameAxes.t, 0, std::min(kept, frames_left_));
    frames_left_ -= out.size(0);
    next_ += tiles_.stride / ratio_;
    if (next_ >= latents_.size(2)) frames_left_ = 0;
    return out;
  }

  const BeginClip begin_;
  const at::Tensor latents_;
  const TimeTiles tiles_;
  const int64_t ratio_;
  const SurplusFrame surplus_;
  int64_t frames_left_;
  int64_t next_ = 0;  // latent frame that the next tile starts at
  std::unique_ptr<DecodeStream> tile_;
  std::vector<at::Tensor> decoded_;
  at::Tensor overlap_;  // the last tile's last frames, which the next one's first are blended with
};

}  // namespace

void BlendTiles(const at::Tensor& a, at::Tensor& b, int64_t axis, int64_t extent) {
  extent = std::min({a.size(axis), b.size(axis), extent});
  for (int64_t i = 0; i < extent; ++i) {
    const double weight = static_cast<double>(i) / static_cast<double>(extent);
    at::Tensor line = b.select(axis, i);
    line.mul_(weight).add_(a.select(axis, a.size(axis) - extent + i) * (1 - weight));
  }
}

at::Tensor TileSlice(const at::Tensor& x, int64_t axis, int64_t begin, int64_t count) {
  return x.narrow(axis, begin, std::clamp<int64_t>(count, 0, x.size(axis) - begin));
}

at::Tensor JoinTiles(std::vector<std::vector<at::Tensor>>& rows, const TileGrid& grid,
                     const TileAxes& axes, int64_t height, int64_t width) {
  std::vector<int64_t> shape = rows[0][0].sizes().vec();
  shape[axes.h] = height;
  shape[axes.w] = width;
  at::Tensor joined = at::empty(shape, rows[0][0].options());
  int64_t y = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    int64_t x = 0;
    for (size_t j = 0; j < rows[i].size(); ++j) {
      at::Tensor& tile = rows[i][j];
      if (i > 0) BlendTiles(rows[i - 1][j], tile, axes.h, grid.min_height - grid.stride_height);
      if (j > 0) BlendTiles(rows[i][j - 1], tile, axes.w, grid.min_width - grid.stride_width);
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

at::Tensor EncodeInTiles(EncodePart encode, int64_t height, int64_t width, const TileGrid& pixels,
                         const TileGrid& latents, int64_t ratio, PartLatent part) {
  if (height <= pixels.min_height && width <= pixels.min_width) return encode(0, height, 0, width);
  ThrowIfError(CheckEncodeTiles(height, width, pixels, latents, ratio, part));
  std::vector<std::vector<at::Tensor>> tiles;
  for (int64_t y = 0; y < height; y += pixels.next_row()) {
    tiles.emplace_back();
    for (int64_t x = 0; x < width; x += pixels.next_column()) {
      tiles.back().push_back(encode(y, std::min(pixels.min_height, height - y), x,
                                    std::min(pixels.min_width, width - x)));
    }
  }
  return JoinTiles(tiles, latents, kLatentAxes, height / ratio, width / ratio);
}

at::Tensor EncodeInTimeTiles(EncodeFrames encode, int64_t frames,
                             const std::optional<TimeTiles>& tiles, int64_t ratio) {
  if (!tiles || frames <= tiles->frames) return encode(0, frames);
  TORCH_CHECK(tiles->stride >= ratio, "tiles in time ", tiles->stride, " frames apart");
  ThrowIfError(CheckEncodeTimeTiles(frames, *tiles, ratio));
  const int64_t stride = tiles->stride / ratio, overlap = tiles->frames / ratio - stride;
  std::vector<at::Tensor> joined;
  at::Tensor before;
  for (int64_t first = 0; first < frames; first += tiles->stride) {
    at::Tensor tile = encode(first, std::min(tiles->frames + 1, frames - first));
    if (first > 0) {
      tile = tile.narrow(kLatentAxes.t, 1, tile.size(kLatentAxes.t) - 1);
      BlendTiles(before, tile, kLatentAxes.t, overlap);
    }
    joined.push_back(TileSlice(tile, kLatentAxes.t, 0, first > 0 ? stride : stride + 1));
    before = tile;
  }
  return TileSlice(at::cat(joined, kLatentAxes.t), kLatentAxes.t, 0, (frames - 1) / ratio + 1);
}

std::unique_ptr<DecodeStream> DecodeInTimeTiles(BeginClip begin, const at::Tensor& latents,
                                                const std::optional<TimeTiles>& tiles,
                                                int64_t ratio, SurplusFrame surplus) {
  if (!tiles || latents.size(kLatentAxes.t) <= tiles->frames / ratio) return begin(latents);
  TORCH_CHECK(tiles->stride >= ratio, "tiles in time ", tiles->stride, " frames apart");
  return std::make_unique<TimeTileStream>(std::move(begin), latents, *tiles, ratio, surplus);
}

at::Tensor DecodeStream::Next(const RunContext& context) {
  const at::Tensor frames = NextFrames(context);
  if (!frames.defined()) return {};
  return frames.permute({3, 0, 1, 2}).unsqueeze(0);
}

std::unique_ptr<DecodeStream> DecodeInTiles(const BeginDecode& begin, const at::Tensor& latents,
                                            const std::optional<TileGrid>& grid, int64_t ratio) {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 && latents.size(2) > 0,
              "cannot decode latents of shape ", latents.sizes());
  if (grid &&
      (latents.size(4) > grid->min_width / ratio || latents.size(3) > grid->min_height / ratio)) {
    return std::make_unique<SpatialTileStream>(begin, latents, *grid, ratio);
  }
  return std::make_unique<WholeStream>(begin, latents, latents.size(3) * latents.size(4));
}

}  // namespace kino::engine
