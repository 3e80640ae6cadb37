#include "engine/describe/vae_tile_sizes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kino::engine {

OverlappingTiles::OverlappingTiles(const VaeTileSizes& defaults, const VaeTiling& request) {
  const VaeTileSizes sizes = defaults.With(request);
  height_ = {sizes.min_height, sizes.stride_height,
             request.tile_sample_stride_height ? 0 : defaults.overlap_height};
  width_ = {sizes.min_width, sizes.stride_width,
            request.tile_sample_stride_width ? 0 : defaults.overlap_width};
}

int64_t OverlappingTiles::Axis::Step(int64_t length) const {
  return overlap == 0 ? length * stride / tile
                      : static_cast<int64_t>(static_cast<double>(length) * (1 - overlap));
}
int64_t OverlappingTiles::Axis::Kept(int64_t length) const {
  return overlap == 0 ? (length * stride + tile - 1) / tile
                      : length - static_cast<int64_t>(static_cast<double>(length) * overlap);
}

TileGrid OverlappingTiles::DecodeGrid(int64_t ratio) const {
  TileGrid grid = PixelGrid();
  grid.step_height = ratio * height_.Step(height_.tile / ratio);
  grid.step_width = ratio * width_.Step(width_.tile / ratio);
  return grid;
}

TileGrid OverlappingTiles::PixelGrid() const {
  return {height_.tile,
          width_.tile,
          height_.Kept(height_.tile),
          width_.Kept(width_.tile),
          height_.Step(height_.tile),
          width_.Step(width_.tile)};
}

TileGrid OverlappingTiles::LatentGrid(int64_t ratio) const {
  return {height_.tile / ratio, width_.tile / ratio, height_.Kept(height_.tile / ratio),
          width_.Kept(width_.tile / ratio)};
}

absl::Status CheckEncodeTiles(int64_t height, int64_t width, const TileGrid& pixels,
                              const TileGrid& latents, int64_t ratio, PartLatent part) {
  const int64_t up = part == PartLatent::kOneMore ? ratio - 1 : 0;
  const auto joined = [ratio, up](int64_t length, int64_t tile, int64_t step, int64_t kept) {
    int64_t total = 0;
    for (int64_t begin = 0; begin < length; begin += step) {
      const int64_t of_tile = (std::min(tile, length - begin) + up) / ratio;
      if (of_tile == 0) return int64_t{0};
      total += std::min(kept, of_tile);
    }
    return total;
  };
  if (height <= pixels.min_height && width <= pixels.min_width) return absl::OkStatus();
  const int64_t rows = joined(height, pixels.min_height, pixels.next_row(), latents.stride_height);
  const int64_t columns =
      joined(width, pixels.min_width, pixels.next_column(), latents.stride_width);
  if (rows == height / ratio && columns == width / ratio) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("to encode ", height, "x", width, " pixels, tiles of ", pixels.min_height, "x",
                   pixels.min_width, " give ", rows, "x", columns, " latents, expected ",
                   height / ratio, "x", width / ratio));
}

absl::Status CheckEncodeTimeTiles(int64_t frames, const TimeTiles& tiles, int64_t ratio) {
  if (frames <= tiles.frames) return absl::OkStatus();
  // Tiles have one latent frame more, which all but the first leave out.
  int64_t joined = 1;
  for (int64_t first = 0; first < frames; first += tiles.stride)
    joined += std::min(tiles.stride, std::min(tiles.frames, frames - first - 1)) / ratio;
  const int64_t expected = (frames - 1) / ratio + 1;
  if (joined >= expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("to encode ", frames, " frames, tiles of ", tiles.frames, " frames, ",
                   tiles.stride, " apart, give ", joined, " latent frames, expected ", expected));
}

}  // namespace kino::engine
