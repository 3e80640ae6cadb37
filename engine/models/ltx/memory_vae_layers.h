// The layers of the LTX-Video VAE on shapes instead of tensors: what each of vae_layers.h allocates
// and frees, line for line. For memory_vae.cc only. One thread; a walk outlives its layers.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/describe/live_bytes.h"
#include "engine/models/ltx/memory_vae.h"
#include "engine/models/ltx/vae_runs.h"

namespace kino::engine {

inline constexpr int64_t kLtxWalkKernel = 3;
inline constexpr int64_t kLtxWalkFloatBytes = 4;
// oneDNN pads the channels of a weight to whole vectors.
inline constexpr int64_t kLtxWalkPackedChannels = 16;

inline int64_t LtxWalkRoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// What every layer of one walk shares.
struct LtxWalk {
  const LtxVaeConfig& config;
  const LtxVaeWalkOptions& options;
  LiveBytes ledger = {};
  double flops = 0;
  double weights_used = 0;  // elements, of each call of a convolution
  double weights = 0;       // elements there are

  HeldBytes Hold(int64_t elements) { return {ledger, elements * options.element_bytes}; }
  // The norm's float32 steps where it is not fused.
  void NormSilu(int64_t elements) {
    if (options.norm_is_fused) return;
    ledger.Touch(elements * (kLtxWalkFloatBytes + options.element_bytes % kLtxWalkFloatBytes));
  }
  LtxRunLength runs() const { return options.on_gpu ? LtxRunLength::OnGpu() : LtxRunLength(); }
};

// [t, h, w, c]; the bytes may be those of a larger tensor it is a part of.
struct LtxWalkFrames {
  int64_t t = 0, h = 0, w = 0, c = 0;
  std::shared_ptr<const HeldBytes> held = nullptr;
  int64_t elements() const { return t * h * w * c; }
};

inline LtxWalkFrames MakeLtxWalkFrames(LtxWalk& walk, int64_t t, int64_t h, int64_t w, int64_t c) {
  return {.t = t,
          .h = h,
          .w = w,
          .c = c,
          .held = std::make_shared<const HeldBytes>(walk.Hold(t * h * w * c))};
}

struct LtxWalkFrameQueue {
  int64_t t = 0;
  HeldBytes held;

  // Joined when some of it was held; else a view of `fresh`.
  LtxWalkFrames Exchange(LtxWalk& walk, const LtxWalkFrames& fresh, int64_t count) {
    LtxWalkFrames taken = fresh;
    taken.t = count;
    if (std::min(t, count) > 0) taken = MakeLtxWalkFrames(walk, count, fresh.h, fresh.w, fresh.c);
    const int64_t rest = t + fresh.t - count;
    HeldBytes next = walk.Hold(rest * fresh.h * fresh.w * fresh.c);
    held = std::move(next);
    t = rest;
    return taken;
  }
};

class LtxWalkConvolution {
 public:
  struct State {
    int64_t tail_frames = 0;
    HeldBytes tail;
  };
  struct Window {
    HeldBytes buffer;
    int64_t length = 0, h = 0, w = 0;
  };

  LtxWalkConvolution(LtxWalk& walk, int64_t in, int64_t out, const LtxVaeStride& stride,
                     bool causal)
      : in_(in), out_(out), stride_(stride), causal_(causal) {
    walk.weights += static_cast<double>(Weight());
  }

  Window OpenBehind(LtxWalk& walk, int64_t known, const LtxWalkFrames& fresh, bool last) const {
    const int64_t lead = known > 0 ? known : (causal_ ? kLtxWalkKernel - 1 : kLtxWalkKernel / 2);
    const int64_t trail = last && !causal_ ? kLtxWalkKernel / 2 : 0;
    const int64_t length = lead + fresh.t + trail;
    return {.buffer = walk.Hold(length * fresh.h * fresh.w * in_),
            .length = length,
            .h = fresh.h,
            .w = fresh.w};
  }
  Window Open(LtxWalk& walk, State& state, const LtxWalkFrames& fresh, bool last) const {
    Window window = OpenBehind(walk, state.tail_frames, fresh, last);
    state = {};
    return window;
  }

  LtxWalkFrames Close(LtxWalk& walk, const Window& window) const {
    const int64_t h = (window.h - 1) / stride_.h + 1, w = (window.w - 1) / stride_.w + 1;
    if (window.length < kLtxWalkKernel) return {.t = 0, .h = h, .w = w, .c = out_};
    const int64_t count = (window.length - kLtxWalkKernel) / stride_.t + 1;
    walk.flops += 2.0 * static_cast<double>(Weight()) * static_cast<double>(count * h * w);
    walk.weights_used += static_cast<double>(Weight());
    if (walk.options.on_gpu) {
      // cuDNN takes the weight channels last.
      const HeldBytes reordered = walk.Hold(Weight());
      return MakeLtxWalkFrames(walk, count, h, w, out_);
    }
    if (!walk.options.packs_weights) {
      // at::conv3d: the input anew, twice, and the weight; its output is made
      // channels last.
      const HeldBytes input = walk.Hold(window.length * window.h * window.w * in_);
      {
        const HeldBytes again = walk.Hold(window.length * window.h * window.w * in_);
        const HeldBytes reordered = walk.Hold(Weight());
        walk.ledger.Touch(count * h * w * out_ * walk.options.element_bytes);
      }
      const HeldBytes planes = walk.Hold(count * h * w * out_);
      return MakeLtxWalkFrames(walk, count, h, w, out_);
    }
    // Some output channels after the others.
    const int64_t most = LtxPackedChannels(Weight(), out_);
    const auto convolve = [&](int64_t channels) {
      const int64_t taps = kLtxWalkKernel * kLtxWalkKernel * kLtxWalkKernel;
      HeldBytes dense = walk.Hold(channels * in_ * taps);
      const HeldBytes packed = walk.Hold(LtxWalkRoundUp(channels, kLtxWalkPackedChannels) *
                                         LtxWalkRoundUp(in_, kLtxWalkPackedChannels) * taps);
      dense.Release();
      return MakeLtxWalkFrames(walk, count, h, w, channels);
    };
    if (most >= out_) return convolve(out_);
    LtxWalkFrames output;
    for (int64_t first = 0; first < out_; first += most) {
      const LtxWalkFrames part = convolve(std::min(most, out_ - first));
      if (output.held == nullptr) output = MakeLtxWalkFrames(walk, count, h, w, out_);
    }
    return output;
  }

  LtxWalkFrames Close(LtxWalk& walk, State& state, Window window, bool last) const {
    const int64_t used = window.length < kLtxWalkKernel
                             ? 0
                             : ((window.length - kLtxWalkKernel) / stride_.t + 1) * stride_.t;
    if (!last) {
      state.tail_frames = window.length - used;
      // Where nothing is used the tail is the window itself.
      if (used == 0) {
        state.tail = std::move(window.buffer);
      } else {
        state.tail = walk.Hold(state.tail_frames * window.h * window.w * in_);
      }
    }
    return Close(walk, window);
  }

  // The frames are let go before the convolution.
  LtxWalkFrames Push(LtxWalk& walk, State& state, LtxWalkFrames frames, bool last) const {
    Window window = Open(walk, state, frames, last);
    frames.held = nullptr;
    return Close(walk, state, std::move(window), last);
  }

 private:
  int64_t Weight() const { return out_ * in_ * kLtxWalkKernel * kLtxWalkKernel * kLtxWalkKernel; }

  int64_t in_, out_;
  LtxVaeStride stride_;
  bool causal_;
};

class LtxWalkResnet {
 public:
  struct State {
    int64_t recent_frames = 0, waiting = 0;
    HeldBytes recent;
    LtxWalkConvolution::State conv2;
    HeldBytes noise;
  };

  LtxWalkResnet(LtxWalk& walk, int64_t in, int64_t out, bool causal, bool injects_noise)
      : conv1_(walk, in, out, {}, causal),
        conv2_(walk, out, out, {}, causal),
        in_(in),
        out_(out),
        injects_noise_(injects_noise) {}

  State Start(LtxWalk& walk, int64_t height, int64_t width) const {
    State state;
    if (injects_noise_) state.noise = walk.Hold(2 * height * width);
    return state;
  }

  LtxWalkFrames Push(LtxWalk& walk, State& state, const LtxWalkFrames& frames, bool last) const {
    LtxWalkFrames hidden;
    {
      const LtxWalkConvolution::Window window =
          conv1_.OpenBehind(walk, state.recent_frames > 0 ? kKnown : 0, frames, last);
      walk.NormSilu(frames.elements());
      hidden = conv1_.Close(walk, window);
    }
    AddNoise(walk, hidden);
    if (hidden.t > 0 || last) {
      LtxWalkConvolution::Window window = conv2_.Open(walk, state.conv2, hidden, last);
      walk.NormSilu(hidden.elements());
      hidden.held = nullptr;
      hidden = conv2_.Close(walk, state.conv2, std::move(window), last);
      AddNoise(walk, hidden);
    }
    AddShortcut(walk, state, frames, hidden.t);
    if (last) state = {};
    return hidden;
  }

 private:
  static constexpr int64_t kKnown = 2;

  void AddNoise(LtxWalk& walk, const LtxWalkFrames& hidden) const {
    if (injects_noise_) {
      walk.ledger.Touch(hidden.h * hidden.w * hidden.c * walk.options.element_bytes);
    }
  }
  void AddShortcut(LtxWalk& walk, State& state, const LtxWalkFrames& frames, int64_t count) const {
    const int64_t from_recent = std::min(state.waiting, count), from_fresh = count - from_recent;
    if (in_ != out_) {
      // The norm and the product, of one part at a time.
      walk.ledger.Touch(std::max(from_recent, from_fresh) * frames.h * frames.w * (in_ + out_) *
                        walk.options.element_bytes);
    }
    state.waiting += frames.t - count;
    if (frames.t == 0 && state.recent_frames > 0) return;
    state.recent_frames = std::min(kKnown, state.recent_frames + frames.t);
    HeldBytes next = walk.Hold(state.recent_frames * frames.h * frames.w * frames.c);
    state.recent = std::move(next);
  }

  LtxWalkConvolution conv1_, conv2_;
  int64_t in_, out_;
  bool injects_noise_;
};

class LtxWalkDownsampler {
 public:
  struct State {
    LtxWalkConvolution::State conv;
    LtxWalkFrameQueue conv_frames, residual_frames;
    bool started = false;
  };

  LtxWalkDownsampler(LtxWalk& walk, int64_t in, int64_t out, const LtxVaeStride& stride,
                     bool causal)
      : conv_(walk, in, out / stride.product(), {}, causal), out_(out), stride_(stride) {}

  LtxWalkFrames Push(LtxWalk& walk, State& state, LtxWalkFrames frames, bool last) const {
    if (!state.started && frames.t > 0) {
      if (stride_.t > 1) {
        frames = MakeLtxWalkFrames(walk, frames.t + std::min(stride_.t - 1, frames.t), frames.h,
                                   frames.w, frames.c);
      }
      state.started = true;
    }
    LtxWalkFrames hidden = conv_.Push(walk, state.conv, frames, last);
    const int64_t ready = (state.conv_frames.t + hidden.t) / stride_.t * stride_.t;
    const LtxWalkFrames out = Join(walk, state.conv_frames.Exchange(walk, hidden, ready), out_);
    hidden = {};
    const LtxWalkFrames residual = Join(walk, state.residual_frames.Exchange(walk, frames, ready),
                                        frames.c * stride_.product());
    frames = {};
    walk.ledger.Touch(out.elements() * walk.options.element_bytes);  // the residual's mean
    return out;
  }

 private:
  LtxWalkFrames Join(LtxWalk& walk, const LtxWalkFrames& x, int64_t channels) const {
    return MakeLtxWalkFrames(walk, x.t / stride_.t, x.h / stride_.h, x.w / stride_.w, channels);
  }

  LtxWalkConvolution conv_;
  int64_t out_;
  LtxVaeStride stride_;
};

class LtxWalkUpsampler {
 public:
  struct State {
    LtxWalkConvolution::State conv;
    LtxWalkFrameQueue residual_frames;
    bool started = false;
  };

  LtxWalkUpsampler(LtxWalk& walk, int64_t in, int64_t upscale_factor, bool residual, bool causal)
      : conv_(walk, in, in * kScale / upscale_factor, {}, causal), residual_(residual) {}

  LtxWalkFrames Push(LtxWalk& walk, State& state, const LtxWalkFrames& frames, bool last) const {
    LtxWalkFrames hidden = conv_.Push(walk, state.conv, frames, last);
    const int64_t ready = hidden.t;
    LtxWalkFrames out = Spread(walk, hidden);
    hidden = {};
    if (residual_) Spread(walk, state.residual_frames.Exchange(walk, frames, ready));
    if (!state.started && ready > 0) {
      state.started = true;
      out.t -= 1;  // the bytes stay
    }
    return out;
  }

 private:
  static constexpr int64_t kScale = 8;
  static LtxWalkFrames Spread(LtxWalk& walk, const LtxWalkFrames& x) {
    return MakeLtxWalkFrames(walk, x.t * 2, x.h * 2, x.w * 2, x.c / kScale);
  }

  LtxWalkConvolution conv_;
  bool residual_;
};

}  // namespace kino::engine
