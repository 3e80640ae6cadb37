// The layers of the LTX-Video VAE, encoder and decoder. Each takes a video a run of frames at a
// time and gives frames as soon as their neighbours in time are known, so that any cutting into
// runs yields what one run yields: what a layer still needs of earlier frames is in a state object,
// one per video and layer. The last run flushes it.
//
// Frames are [T, H, W, C], contiguous; T may be 0. A layer and its states belong to
// one thread at a time. Source: diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py;
// parameter names are the checkpoint's.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/models/ltx/vae_config.h"
#include "engine/nn/causal_conv3d.h"
#include "engine/nn/frame_chain.h"
#include "engine/ops/norm_silu.h"
#include "engine/ops/space_depth.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

struct LtxResnetOptions {
  int64_t in_channels = 0;
  int64_t out_channels = 0;
  bool causal = true;
  double norm_eps = 1e-6;
  bool inject_noise = false;
  bool timestep_conditioning = false;
};

// LTXVideoResnetBlock3d.
class LtxVaeResnet {
 public:
  struct State {
    // The last input frames, two once there are: the first convolution's tail before its norm, and
    // what of it the shortcut waits with.
    at::Tensor recent;
    int64_t waiting = 0;  // the newest so many have no output yet
    CausalConv3d::State conv2;
    ChannelModulation modulation1;
    ChannelModulation modulation2;
    at::Tensor noise1;  // [H, W, 1]: one for all frames
    at::Tensor noise2;
  };

  LtxVaeResnet(const WeightScope& scope, const LtxResnetOptions& options);
  // temb: [4 * C], the block's timestep embedding; undefined when not conditioned. Noise, where
  // injected, is drawn here: `height` x `width` for the first convolution, then for the second.
  State Start(const at::Tensor& temb, std::optional<at::Generator> noise_generator, int64_t height,
              int64_t width, const at::TensorOptions& options) const;
  at::Tensor Push(State& state, at::Tensor frames, bool last) const;

 private:
  CausalConv3d::Window OpenFirst(const State& state, const at::Tensor& frames, bool last) const;
  at::Tensor Shortcut(const at::Tensor& frames) const;
  // out += the inputs of its frames; the state remembers the newest.
  void AddShortcut(State& state, const at::Tensor& frames, at::Tensor& out) const;

  CausalConv3d conv1_;
  CausalConv3d conv2_;
  double norm_eps_;
  WeightRef norm3_weight_;
  WeightRef norm3_bias_;
  WeightRef shortcut_weight_;
  WeightRef shortcut_bias_;
  WeightRef per_channel_scale1_;
  WeightRef per_channel_scale2_;
  WeightRef scale_shift_table_;
};

// LTXVideoDownsampler3d: space to depth behind a convolution, plus the mean over groups of the
// input's.
class LtxVaeDownsampler {
 public:
  struct State {
    CausalConv3d::State conv;
    FrameQueue conv_frames;
    FrameQueue residual_frames;
    bool started = false;
  };

  LtxVaeDownsampler(const WeightScope& scope, int64_t in_channels, int64_t out_channels,
                    const Stride3d& stride, bool causal);
  // REQUIRES: the video has a multiple of stride.t frames, plus one when stride.t > 1.
  at::Tensor Push(State& state, at::Tensor frames, bool last) const;

 private:
  CausalConv3d conv_;
  int64_t out_channels_;
  Stride3d stride_;
};

// LTXVideoUpsampler3d: depth to space behind a convolution, without the first frame; with a
// residual of the same kind.
class LtxVaeUpsampler {
 public:
  struct State {
    CausalConv3d::State conv;
    FrameQueue residual_frames;
    bool started = false;
  };

  LtxVaeUpsampler(const WeightScope& scope, int64_t in_channels, int64_t upscale_factor,
                  bool residual, bool causal);
  at::Tensor Push(State& state, at::Tensor frames, bool last) const;

 private:
  static constexpr Stride3d kStride = {.t = 2, .h = 2, .w = 2};
  CausalConv3d conv_;
  bool residual_;
};

}  // namespace kino::engine
