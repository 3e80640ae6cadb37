// Overlapping tiles of a video in time and space, each decoded as a whole clip and added up under
// ramps that fade it in and out where it overlaps others. For decoders whose layers look at all
// frames of a tile, so that nothing but the tile can be cut (diffusers 0.42.1
// autoencoder_kl_allegro.py, tiled_decode and _prepare_for_blend). One thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/describe/vae_tile_sizes.h"
#include "engine/models/common/vae_tiles.h"

namespace kino::engine {

// A tile along one axis: latents [begin, end) are decoded, and what they give from `from` on is
// used. It fades in over the `fade_in` latents from there, and out over its last `fade_out`.
struct TileStretch {
  int64_t begin, end, from, fade_in, fade_out;
  bool operator==(const TileStretch&) const = default;
};

// Tiles of `size`, each `stride` behind the one before, over `length` latents. An axis shorter than
// a tile is one tile. What whole strides leave at the end, which diffusers leaves zero, has a tile
// that ends where the axis does; it fades in where the last but one fades out, so that everything
// before is diffusers'.
std::vector<TileStretch> TileStretches(int64_t length, int64_t size, int64_t stride);

// Decodes one tile: [1, C, f, h, w] -> [f * ratio, h * ratio, w * ratio, 3]. The result is used up.
using DecodeTile = std::function<at::Tensor(const at::Tensor& latents, const RunContext& context)>;

// latents: [1, C, F, h, w], as `decode` takes them -> the first `frames` frames of the video. Tiles
// of `sizes`, in whole latents (its unit and frames_unit are the decoder's ratios). Each NextFrames
// decodes one; those of a stretch of time follow each other, and its frames leave with the last of
// them, so that memory does not grow with the video.
std::unique_ptr<DecodeStream> DecodeInClipTiles(DecodeTile decode, const at::Tensor& latents,
                                                const VaeTileSizes& sizes, int64_t frames);

}  // namespace kino::engine
