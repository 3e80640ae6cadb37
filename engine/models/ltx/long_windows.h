// How LTX-Video's long videos are cut into windows in time. Pure functions; no torch. Source:
// diffusers 0.42.1 pipelines/ltx/pipeline_ltx_i2v_long_multi_prompt.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/models/ltx/knobs.h"

namespace kino::engine {

// Latent frames, of `ratio` pixel frames each.
struct LtxWindowSizes {
  LtxWindowSizes(const LtxKnobs& knobs, int64_t ratio)
      : tile(std::max<int64_t>(1, *knobs.temporal_tile_size / ratio)),
        overlap(*knobs.temporal_overlap / ratio) {}
  int64_t tile, overlap;
  // Frames over which a window fades into what is there: its first frame is left out. Up to 1 the
  // two are just joined.
  int64_t faded() const { return std::max<int64_t>(overlap - 1, 1); }
};

struct LtxWindow {
  int64_t begin, end;    // latent frames
  int64_t before, made;  // frames of the video that are there before it and behind it
  int64_t frames() const { return end - begin; }
  bool operator==(const LtxWindow&) const = default;
};

// The windows of so many latent frames. REQUIRES: where there are several, overlap < tile; each
// then has more frames than the overlap. Upstream joins overlaps of 2 without fading, so that each
// window brings a frame too many, and without an overlap one too few: the last window's `made` is
// not always `frames`.
inline std::vector<LtxWindow> SplitIntoWindows(int64_t frames, const LtxWindowSizes& sizes) {
  std::vector<LtxWindow> windows;
  for (int64_t begin = 0;; begin += sizes.tile - sizes.overlap) {
    const int64_t end = std::min(begin + sizes.tile, frames);
    const int64_t before = windows.empty() ? 0 : windows.back().made;
    const int64_t shared = windows.empty() ? 0 : 1 + (sizes.faded() > 1 ? sizes.faded() : 0);
    windows.push_back({begin, end, before, before + end - begin - shared});
    if (end == frames) return windows;
  }
}

}  // namespace kino::engine
