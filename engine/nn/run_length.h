// How long the runs of frames are that a VAE's layers take at a time. Longer runs use a layer's
// weights for more frames; what is live grows with them. Values.
#pragma once

#include <c10/core/Device.h>

#include <algorithm>
#include <cstdint>

namespace kino::engine {

struct RunLength {
  // On the CPU. A wide layer's weights are put in oneDNN's order anew for each run, which eight
  // frames pay for; narrow layers at full resolution are as fast with few frames.
  static constexpr int64_t kFrames = 8;
  static constexpr int64_t kElements = int64_t{1} << 22;
  // On a GPU. Each convolution's run takes the two frames before it along and keeps its own last
  // two, and each run is launches of its own: short runs of a few frames moved twice the bytes.
  // Counted (docs/benchmarks.md), not measured.
  static constexpr int64_t kGpuFrames = 16;
  static constexpr int64_t kGpuElements = int64_t{1} << 28;

  static RunLength OnGpu() { return {.frames = kGpuFrames, .elements = kGpuElements}; }

  int64_t frames = kFrames;      // at most
  int64_t elements = kElements;  // of a layer's larger side, and at least one frame

  // Frames a layer takes at a time that gives `out_frames` for each, with `frame_elements` elements
  // for each of those it takes: its input's or its outputs', whichever is more.
  int64_t Frames(int64_t frame_elements, int64_t out_frames = 1) const {
    return std::max<int64_t>(1, std::min(frames / out_frames, elements / frame_elements));
  }
};

// For a layer on `device`, or on what a trace stands for.
RunLength RunLengthOn(c10::Device device);

}  // namespace kino::engine
