// The tiles in which a VAE decodes and encodes, with a family's own sizes for what a request leaves
// open. Values; no torch.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "engine/describe/request.h"

namespace kino::engine {

// Sizes of tiles, and how much of each is kept: its stride. What is beyond that is blended into the
// next tile.
struct TileGrid {
  int64_t min_height, min_width, stride_height, stride_width;
  // From where a tile begins to where the next one does; 0: the stride. A step of another length
  // makes the result larger or smaller than the whole (AutoencoderKLCogVideoX, with most sizes).
  int64_t step_height = 0, step_width = 0;

  int64_t next_row() const { return step_height > 0 ? step_height : stride_height; }
  int64_t next_column() const { return step_width > 0 ? step_width : stride_width; }
  // Of tiles of pixels, `ratio` of them a latent: in whole latents, a stride apart.
  TileGrid InLatents(int64_t ratio) const {
    return {min_height / ratio, min_width / ratio, stride_height / ratio, stride_width / ratio};
  }
};

// Tiles in time, in frames: so long, and so much of each is kept.
struct TimeTiles {
  int64_t frames, stride;
};

// Pixels and frames, as diffusers' VAE classes name and default them.
struct VaeTileSizes {
  int min_height = 0, min_width = 0;
  int stride_height = 0, stride_width = 0;
  // Of a family that tiles in time (VaeTiling::framewise); 0: it does not.
  int min_num_frames = 0, stride_num_frames = 0;
  // It does so unless a request says otherwise.
  bool framewise = false;
  // A tile and a stride are at least so large: one latent.
  int unit = 1, frames_unit = 1;
  // Tiles fade into each other and are added up: no more than two may meet, so a stride is at least
  // half a tile.
  bool adds_up = false;
  // The part of a tile that the next one covers as well, of a class that fixes it rather than the
  // stride; 0: it fixes the stride.
  double overlap_height = 0, overlap_width = 0;

  // What the request says in place of these.
  VaeTileSizes With(const VaeTiling& request) const {
    VaeTileSizes sizes = *this;
    const auto set = [](int& field, const std::optional<int>& value) {
      if (value) field = *value;
    };
    set(sizes.min_height, request.tile_sample_min_height);
    set(sizes.min_width, request.tile_sample_min_width);
    set(sizes.stride_height, request.tile_sample_stride_height);
    set(sizes.stride_width, request.tile_sample_stride_width);
    if (overlap_height > 0 && !request.tile_sample_stride_height)
      sizes.stride_height = StrideOf(sizes.min_height, overlap_height);
    if (overlap_width > 0 && !request.tile_sample_stride_width)
      sizes.stride_width = StrideOf(sizes.min_width, overlap_width);
    set(sizes.min_num_frames, request.tile_sample_min_num_frames);
    set(sizes.stride_num_frames, request.tile_sample_stride_num_frames);
    return sizes;
  }
  // A request's tiles in time; those of the class where the request leaves it open and the class
  // has them.
  std::optional<TimeTiles> InTime(const std::optional<VaeTiling>& request) const {
    const VaeTiling asked = request.value_or(VaeTiling());
    if (!asked.framewise.value_or(framewise)) return std::nullopt;
    const VaeTileSizes sizes = With(asked);
    return TimeTiles{sizes.min_num_frames, sizes.stride_num_frames};
  }
  TileGrid grid() const { return {min_height, min_width, stride_height, stride_width}; }
  static int StrideOf(int tile, double overlap) { return tile - static_cast<int>(tile * overlap); }
};

// Of diffusers' VAEs that say how much tiles overlap, not their strides: a tile's step, and what is
// kept of it, are parts of its length, of its pixels as of its latents, each rounded by itself.
class OverlappingTiles {
 public:
  OverlappingTiles(const VaeTileSizes& defaults, const VaeTiling& request);
  // To decode with: in pixels, `ratio` of them a latent.
  TileGrid DecodeGrid(int64_t ratio) const;
  // To encode with: of the video, in pixels; and of what it becomes, in latents.
  TileGrid PixelGrid() const;
  TileGrid LatentGrid(int64_t ratio) const;

 private:
  struct Axis {
    int64_t Step(int64_t length) const;
    int64_t Kept(int64_t length) const;
    int64_t tile, stride;
    double overlap;  // 0: by the stride
  };
  Axis height_, width_;
};

// Of a decode in `tiles` tiles along an axis of so many latents: what each has but for the last,
// which reaches the end. They begin every (this - overlap) latents.
inline int64_t EvenTile(int64_t latents, int64_t tiles, int64_t overlap) {
  return (latents + (tiles - 1) * overlap) / tiles;
}

// What an encoder makes of pixels at the end of a tile that are less than a latent.
enum class PartLatent { kNothing, kOneMore };

// OK when the tiles of a video of height x width pixels, `ratio` of them a latent, give as many
// latents as it has. pixels, latents: as OverlappingTiles gives them. INVALID_ARGUMENT: they do
// not, and diffusers fails at it.
absl::Status CheckEncodeTiles(int64_t height, int64_t width, const TileGrid& pixels,
                              const TileGrid& latents, int64_t ratio,
                              PartLatent part = PartLatent::kNothing);
// The same in time, of encoders that make one latent frame of the first frame and of each `ratio`
// frames behind it, or less at the end (diffusers' _temporal_tiled_encode).
absl::Status CheckEncodeTimeTiles(int64_t frames, const TimeTiles& tiles, int64_t ratio);

}  // namespace kino::engine
