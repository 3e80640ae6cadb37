// A convolution over a video that comes a run of frames at a time: what it still needs of earlier
// frames is in a state object, one per video, so that any cutting into runs yields what one run
// yields. The last run flushes it.
//
// Frames are [T, H, W, C], contiguous; T may be 0. Immutable after construction; a state belongs to
// one thread at a time. Sources: diffusers 0.42.1 autoencoder_kl_ltx.py (LTXVideoCausalConv3d) and
// autoencoder_kl_cogvideox.py (CogVideoXCausalConv3d).
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "engine/core/stride3d.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

struct CausalConv3dOptions {
  int64_t in_channels = 0;
  int64_t out_channels = 0;
  Stride3d stride = {};
  // In time the first frame is repeated before the video; if not causal, half of that, and the last
  // frame is repeated behind it.
  bool causal = true;
  // What is around height and width: the edge repeated, or zeros.
  bool repeats_edges = false;
};

// Kernel 3 in each axis.
class CausalConv3d {
 public:
  struct State {
    at::Tensor tail;  // input frames the next output needs; undefined before the first
  };
  // Where the frames of one run are written, so that nothing is joined or padded by copying.
  class Window {
   public:
    // To fill: [known frames, H, W, in], the frames before the fresh ones; and the fresh ones.
    // Views of a buffer that has a border where edges are repeated.
    at::Tensor Known() const { return Inner(0, has_known_ ? lead_ : 0); }
    at::Tensor Fresh() const { return Inner(lead_, fresh_); }

   private:
    friend class CausalConv3d;
    at::Tensor Inner(int64_t first, int64_t count) const;
    at::Tensor buffer_;
    int64_t border_ = 0;
    int64_t lead_ = 0;
    int64_t fresh_ = 0;
    bool has_known_ = false;
  };

  // `scope` holds weight and bias.
  CausalConv3d(const WeightScope& scope, const CausalConv3dOptions& options);
  // Channels, of its input or its output.
  int64_t widest_side() const { return std::max(options_.in_channels, options_.out_channels); }
  // Known() is filled with what the state holds, and the state gives it up.
  Window Open(State& state, at::IntArrayRef fresh_shape, const at::TensorOptions& options,
              bool last) const;
  // REQUIRES: window.Fresh() is filled. Gives 0 frames or more.
  at::Tensor Close(State& state, Window window, bool last) const;
  // Open, copy, Close. `frames` is let go before the convolution.
  at::Tensor Push(State& state, at::Tensor frames, bool last) const;

  // For a caller that keeps the input itself: `known` frames, none or kKnown, are its to fill.
  // REQUIRES: no stride in time.
  static constexpr int64_t kKnown = 2;
  Window OpenBehind(int64_t known, at::IntArrayRef fresh_shape, const at::TensorOptions& options,
                    bool last) const;
  at::Tensor Close(Window window) const;

 private:
  static constexpr int64_t kKernel = 3;
  static void RepeatEdges(Window& window);
  at::Tensor Convolve(const Window& window) const;

  CausalConv3dOptions options_;
  WeightRef weight_;
  WeightRef bias_;
};

}  // namespace kino::engine
