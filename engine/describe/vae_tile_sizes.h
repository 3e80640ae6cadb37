// The tiles in which a VAE decodes and encodes, with a family's own sizes for what a request leaves
// open. Values; no torch.
#pragma once

#include <optional>

#include "engine/describe/request.h"

namespace kino::engine {

// Pixels and frames, as diffusers' VAE classes name and default them.
struct VaeTileSizes {
  int min_height = 0, min_width = 0;
  int stride_height = 0, stride_width = 0;
  // Of a family that tiles in time (VaeTiling::framewise); 0: it does not.
  int min_num_frames = 0, stride_num_frames = 0;
  // A tile and a stride are at least so large: one latent.
  int unit = 1, frames_unit = 1;
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
  static int StrideOf(int tile, double overlap) { return tile - static_cast<int>(tile * overlap); }
};

}  // namespace kino::engine
