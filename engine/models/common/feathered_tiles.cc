#include "engine/models/common/feathered_tiles.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "engine/describe/vae_tile_sizes.h"

namespace kino::engine {
namespace {

// Latents of a tile along an axis.
struct Side {
  int64_t begin, count;
};

std::vector<Side> TilesAlong(int64_t latents, int64_t tiles, int64_t overlap) {
  const int64_t size = EvenTile(latents, tiles, overlap);
  std::vector<Side> along;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t begin = i * (size - overlap);
    along.push_back({begin, i + 1 < tiles ? size : latents - begin});
  }
  return along;
}

// Fades the lines of `weights` in and out along `axis`, in place.
void Feather(at::Tensor weights, int64_t axis, int64_t lines, bool first, bool last) {
  if (lines == 0) return;
  const at::Tensor rising = at::linspace(0, 1, lines, weights.options());
  const at::Tensor falling = at::linspace(1, 0, lines, weights.options());
  const auto shaped = [&](const at::Tensor& line) {
    return axis == 0 ? line.view({-1, 1, 1}) : line.view({1, -1, 1});
  };
  if (!first) weights.narrow(axis, 0, lines).mul_(shaped(rising));
  if (!last) weights.narrow(axis, weights.size(axis) - lines, lines).mul_(shaped(falling));
}

}  // namespace

FeatheredStream::FeatheredStream(const BeginTile& begin, const at::Tensor& latents,
                                 const FeatheredTiles& tiles, int64_t frames)
    : frames_left_(frames) {
  const at::TensorOptions options = latents.options().dtype(at::kFloat);
  const int64_t lines = tiles.overlap * tiles.ratio;
  weights_ = at::zeros({latents.size(3) * tiles.ratio, latents.size(4) * tiles.ratio, 1}, options);
  const std::vector<Side> rows = TilesAlong(latents.size(3), tiles.vertical, tiles.overlap);
  const std::vector<Side> columns = TilesAlong(latents.size(4), tiles.horizontal, tiles.overlap);
  for (const Side& row : rows) {
    for (const Side& column : columns) {
      Tile& tile = tiles_.emplace_back();
      tile.y = row.begin * tiles.ratio;
      tile.x = column.begin * tiles.ratio;
      tile.weights = at::ones({row.count * tiles.ratio, column.count * tiles.ratio, 1}, options);
      Feather(tile.weights, 1, lines, &column == &columns.front(), &column == &columns.back());
      Feather(tile.weights, 0, lines, &row == &rows.front(), &row == &rows.back());
      weights_.narrow(0, tile.y, tile.weights.size(0))
          .narrow(1, tile.x, tile.weights.size(1))
          .add_(tile.weights);
      tile.stream = begin(latents.narrow(3, row.begin, row.count)
                              .narrow(4, column.begin, column.count)
                              .contiguous());
    }
  }
  weights_.add_(1e-8);
}

at::Tensor FeatheredStream::NextFrames(const RunContext& context) {
  int64_t count = frames_left_;
  for (Tile& tile : tiles_) {
    while (!tile.waiting.defined()) {
      TORCH_CHECK(!tile.stream->done(), "a tile of the decode has ended ", frames_left_,
                  " frames early");
      tile.waiting = tile.stream->NextFrames(context);
    }
    count = std::min(count, tile.waiting.size(0));
  }
  at::Tensor joined = at::zeros({count, weights_.size(0), weights_.size(1), 3}, weights_.options());
  at::ScalarType dtype = at::kFloat;
  for (Tile& tile : tiles_) {
    const at::Tensor frames = tile.waiting.narrow(0, 0, count);
    const int64_t left = tile.waiting.size(0) - count;
    tile.waiting = left > 0 ? tile.waiting.narrow(0, count, left) : at::Tensor();
    dtype = frames.scalar_type();
    joined.narrow(1, tile.y, tile.weights.size(0))
        .narrow(2, tile.x, tile.weights.size(1))
        .add_(frames.to(at::kFloat) * tile.weights);
  }
  frames_left_ -= count;
  return joined.div_(weights_).clamp_(-1.0, 1.0).to(dtype);
}

}  // namespace kino::engine
