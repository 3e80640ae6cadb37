#include "engine/models/ltx/memory_vae.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/describe/live_bytes.h"
#include "engine/models/ltx/vae_runs.h"

namespace kino::engine {
namespace {

constexpr int64_t kKernel = 3;
constexpr int64_t kFloatBytes = 4;
// oneDNN pads the channels of a weight to whole vectors.
constexpr int64_t kPackedChannels = 16;
// A longer video holds no more: every layer has its neighbours in time by then.
constexpr int64_t kFramesWalked = 32;

int64_t RoundUp(int64_t value, int64_t to) {
  return (value + to - 1) / to * to;
}

// What every layer of one walk shares.
struct Walk {
  const LtxVaeConfig &config;
  const LtxVaeWalkOptions &options;
  LiveBytes ledger = {};
  double flops = 0;
  double weights_used = 0; // elements, of each call of a convolution
  double weights = 0;      // elements there are

  HeldBytes Hold(int64_t elements) {
    return {ledger, elements * options.element_bytes};
  }
  // The norm's float32 steps where it is not fused.
  void NormSilu(int64_t elements) {
    if (options.norm_is_fused)
      return;
    ledger.Touch(elements *
                 (kFloatBytes + options.element_bytes % kFloatBytes));
  }
  LtxRunLength runs() const {
    return options.on_gpu ? LtxRunLength::OnGpu() : LtxRunLength();
  }
};

// [t, h, w, c]; the bytes may be those of a larger tensor it is a part of.
struct Frames {
  int64_t t = 0, h = 0, w = 0, c = 0;
  std::shared_ptr<const HeldBytes> held = nullptr;
  int64_t elements() const { return t * h * w * c; }
};

Frames MakeFrames(Walk &walk, int64_t t, int64_t h, int64_t w, int64_t c) {
  return {.t = t,
          .h = h,
          .w = w,
          .c = c,
          .held = std::make_shared<const HeldBytes>(walk.Hold(t * h * w * c))};
}

struct FrameQueue {
  int64_t t = 0;
  HeldBytes held;

  // Joined when some of it was held; else a view of `fresh`.
  Frames Exchange(Walk &walk, const Frames &fresh, int64_t count) {
    Frames taken = fresh;
    taken.t = count;
    if (std::min(t, count) > 0)
      taken = MakeFrames(walk, count, fresh.h, fresh.w, fresh.c);
    const int64_t rest = t + fresh.t - count;
    HeldBytes next = walk.Hold(rest * fresh.h * fresh.w * fresh.c);
    held = std::move(next);
    t = rest;
    return taken;
  }
};

class Convolution {
public:
  struct State {
    int64_t tail_frames = 0;
    HeldBytes tail;
  };
  struct Window {
    HeldBytes buffer;
    int64_t length = 0, h = 0, w = 0;
  };

  Convolution(Walk &walk, int64_t in, int64_t out, const LtxVaeStride &stride,
              bool causal)
      : in_(in), out_(out), stride_(stride), causal_(causal) {
    walk.weights += static_cast<double>(Weight());
  }

  Window OpenBehind(Walk &walk, int64_t known, const Frames &fresh,
                    bool last) const {
    const int64_t lead =
        known > 0 ? known : (causal_ ? kKernel - 1 : kKernel / 2);
    const int64_t trail = last && !causal_ ? kKernel / 2 : 0;
    const int64_t length = lead + fresh.t + trail;
    return {.buffer = walk.Hold(length * fresh.h * fresh.w * in_),
            .length = length,
            .h = fresh.h,
            .w = fresh.w};
  }
  Window Open(Walk &walk, State &state, const Frames &fresh, bool last) const {
    Window window = OpenBehind(walk, state.tail_frames, fresh, last);
    state = {};
    return window;
  }

  Frames Close(Walk &walk, const Window &window) const {
    const int64_t h = (window.h - 1) / stride_.h + 1,
                  w = (window.w - 1) / stride_.w + 1;
    if (window.length < kKernel)
      return {.t = 0, .h = h, .w = w, .c = out_};
    const int64_t count = (window.length - kKernel) / stride_.t + 1;
    walk.flops += 2.0 * static_cast<double>(Weight()) *
                  static_cast<double>(count * h * w);
    walk.weights_used += static_cast<double>(Weight());
    if (walk.options.on_gpu) {
      // cuDNN takes the weight channels last.
      const HeldBytes reordered = walk.Hold(Weight());
      return MakeFrames(walk, count, h, w, out_);
    }
    if (!walk.options.packs_weights) {
      // at::conv3d: the input anew, twice, and the weight; its output is made
      // channels last.
      const HeldBytes input =
          walk.Hold(window.length * window.h * window.w * in_);
      {
        const HeldBytes again =
            walk.Hold(window.length * window.h * window.w * in_);
        const HeldBytes reordered = walk.Hold(Weight());
        walk.ledger.Touch(count * h * w * out_ * walk.options.element_bytes);
      }
      const HeldBytes planes = walk.Hold(count * h * w * out_);
      return MakeFrames(walk, count, h, w, out_);
    }
    // Some output channels after the others.
    const int64_t most = LtxPackedChannels(Weight(), out_);
    const auto convolve = [&](int64_t channels) {
      const int64_t taps = kKernel * kKernel * kKernel;
      HeldBytes dense = walk.Hold(channels * in_ * taps);
      const HeldBytes packed = walk.Hold(RoundUp(channels, kPackedChannels) *
                                         RoundUp(in_, kPackedChannels) * taps);
      dense.Release();
      return MakeFrames(walk, count, h, w, channels);
    };
    if (most >= out_)
      return convolve(out_);
    Frames output;
    for (int64_t first = 0; first < out_; first += most) {
      const Frames part = convolve(std::min(most, out_ - first));
      if (output.held == nullptr)
        output = MakeFrames(walk, count, h, w, out_);
    }
    return output;
  }

  Frames Close(Walk &walk, State &state, Window window, bool last) const {
    const int64_t used =
        window.length < kKernel
            ? 0
            : ((window.length - kKernel) / stride_.t + 1) * stride_.t;
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
  Frames Push(Walk &walk, State &state, Frames frames, bool last) const {
    Window window = Open(walk, state, frames, last);
    frames.held = nullptr;
    return Close(walk, state, std::move(window), last);
  }

private:
  int64_t Weight() const { return out_ * in_ * kKernel * kKernel * kKernel; }

  int64_t in_, out_;
  LtxVaeStride stride_;
  bool causal_;
};

class Resnet {
public:
  struct State {
    int64_t recent_frames = 0, waiting = 0;
    HeldBytes recent;
    Convolution::State conv2;
    HeldBytes noise;
  };

  Resnet(Walk &walk, int64_t in, int64_t out, bool causal, bool injects_noise)
      : conv1_(walk, in, out, {}, causal), conv2_(walk, out, out, {}, causal),
        in_(in), out_(out), injects_noise_(injects_noise) {}

  State Start(Walk &walk, int64_t height, int64_t width) const {
    State state;
    if (injects_noise_)
      state.noise = walk.Hold(2 * height * width);
    return state;
  }

  Frames Push(Walk &walk, State &state, const Frames &frames, bool last) const {
    Frames hidden;
    {
      const Convolution::Window window = conv1_.OpenBehind(
          walk, state.recent_frames > 0 ? kKnown : 0, frames, last);
      walk.NormSilu(frames.elements());
      hidden = conv1_.Close(walk, window);
    }
    AddNoise(walk, hidden);
    if (hidden.t > 0 || last) {
      Convolution::Window window = conv2_.Open(walk, state.conv2, hidden, last);
      walk.NormSilu(hidden.elements());
      hidden.held = nullptr;
      hidden = conv2_.Close(walk, state.conv2, std::move(window), last);
      AddNoise(walk, hidden);
    }
    AddShortcut(walk, state, frames, hidden.t);
    if (last)
      state = {};
    return hidden;
  }

private:
  static constexpr int64_t kKnown = 2;

  void AddNoise(Walk &walk, const Frames &hidden) const {
    if (injects_noise_) {
      walk.ledger.Touch(hidden.h * hidden.w * hidden.c *
                        walk.options.element_bytes);
    }
  }
  void AddShortcut(Walk &walk, State &state, const Frames &frames,
                   int64_t count) const {
    const int64_t from_recent = std::min(state.waiting, count),
                  from_fresh = count - from_recent;
    if (in_ != out_) {
      // The norm and the product, of one part at a time.
      walk.ledger.Touch(std::max(from_recent, from_fresh) * frames.h *
                        frames.w * (in_ + out_) * walk.options.element_bytes);
    }
    state.waiting += frames.t - count;
    if (frames.t == 0 && state.recent_frames > 0)
      return;
    state.recent_frames = std::min(kKnown, state.recent_frames + frames.t);
    HeldBytes next =
        walk.Hold(state.recent_frames * frames.h * frames.w * frames.c);
    state.recent = std::move(next);
  }

  Convolution conv1_, conv2_;
  int64_t in_, out_;
  bool injects_noise_;
};

class Downsampler {
public:
  struct State {
    Convolution::State conv;
    FrameQueue conv_frames, residual_frames;
    bool started = false;
  };

  Downsampler(Walk &walk, int64_t in, int64_t out, const LtxVaeStride &stride,
              bool causal)
      : conv_(walk, in, out / stride.product(), {}, causal), out_(out),
        stride_(stride) {}

  Frames Push(Walk &walk, State &state, Frames frames, bool last) const {
    if (!state.started && frames.t > 0) {
      if (stride_.t > 1) {
        frames = MakeFrames(walk, frames.t + std::min(stride_.t - 1, frames.t),
                            frames.h, frames.w, frames.c);
      }
      state.started = true;
    }
    Frames hidden = conv_.Push(walk, state.conv, frames, last);
    const int64_t ready =
        (state.conv_frames.t + hidden.t) / stride_.t * stride_.t;
    const Frames out =
        Join(walk, state.conv_frames.Exchange(walk, hidden, ready), out_);
    hidden = {};
    const Frames residual =
        Join(walk, state.residual_frames.Exchange(walk, frames, ready),
             frames.c * stride_.product());
    frames = {};
    walk.ledger.Touch(out.elements() *
                      walk.options.element_bytes); // the residual's mean
    return out;
  }

private:
  Frames Join(Walk &walk, const Frames &x, int64_t channels) const {
    return MakeFrames(walk, x.t / stride_.t, x.h / stride_.h, x.w / stride_.w,
                      channels);
  }

  Convolution conv_;
  int64_t out_;
  LtxVaeStride stride_;
};

class Upsampler {
public:
  struct State {
    Convolution::State conv;
    FrameQueue residual_frames;
    bool started = false;
  };

  Upsampler(Walk &walk, int64_t in, int64_t upscale_factor, bool residual,
            bool causal)
      : conv_(walk, in, in * kScale / upscale_factor, {}, causal),
        residual_(residual) {}

  Frames Push(Walk &walk, State &state, const Frames &frames, bool last) const {
    Frames hidden = conv_.Push(walk, state.conv, frames, last);
    const int64_t ready = hidden.t;
    Frames out = Spread(walk, hidden);
    hidden = {};
    if (residual_)
      Spread(walk, state.residual_frames.Exchange(walk, frames, ready));
    if (!state.started && ready > 0) {
      state.started = true;
      out.t -= 1; // the bytes stay
    }
    return out;
  }

private:
  static constexpr int64_t kScale = 8;
  static Frames Spread(Walk &walk, const Frames &x) {
    return MakeFrames(walk, x.t * 2, x.h * 2, x.w * 2, x.c / kScale);
  }

  Convolution conv_;
  bool residual_;
};

// LtxFrameChain.
class Chain {
public:
  using Layer = std::function<Frames(Frames frames, bool last)>;

  explicit Chain(Walk &walk) : walk_(&walk) {}

  void Add(Layer layer, int64_t most, int64_t least = 1) {
    stages_.push_back({.layer = std::move(layer),
                       .most = most,
                       .least = least,
                       .waiting = {}});
  }
  void Push(Frames frames, bool last) {
    stages_.front().Give(std::move(frames), last);
  }
  bool done() const { return stages_.back().is_done; }
  int64_t first_run() const { return stages_.front().most; }

  // Nothing (t = 0): no more before the next Push.
  Frames Next() {
    for (;;) {
      const auto ready = std::find_if(
          stages_.rbegin(), stages_.rend(), [](const Stage &stage) {
            return !stage.is_done &&
                   (stage.has_end || stage.frames >= stage.least);
          });
      if (ready == stages_.rend())
        return {};
      Stage &stage = *ready;
      const int64_t count = std::min(stage.frames, stage.most);
      const bool last = stage.has_end && count == stage.frames;
      Frames out = stage.layer(stage.Take(*walk_, count), last);
      stage.is_done = last;
      if (ready != stages_.rbegin()) {
        std::prev(ready)->Give(std::move(out), last);
      } else if (out.t > 0) {
        return out;
      }
    }
  }

private:
  struct Stage {
    Layer layer;
    int64_t most = 1, least = 1;
    std::deque<Frames> waiting;
    int64_t frames = 0;
    bool has_end = false, is_done = false;

    void Give(Frames fresh, bool last) {
      has_end = last;
      frames += fresh.t;
      if (fresh.t > 0 || (last && waiting.empty()))
        waiting.push_back(std::move(fresh));
    }
    Frames Take(Walk &walk, int64_t count) {
      const int64_t wanted = count;
      std::vector<Frames> taken;
      frames -= count;
      do {
        Frames &oldest = waiting.front();
        taken.push_back(oldest);
        taken.back().t = std::min(count, oldest.t);
        count -= taken.back().t;
        oldest.t -= taken.back().t;
        if (oldest.t == 0)
          waiting.pop_front();
      } while (count > 0);
      if (taken.size() == 1)
        return std::move(taken[0]);
      return MakeFrames(walk, wanted, taken[0].h, taken[0].w, taken[0].c);
    }
  };

  Walk *walk_;
  std::vector<Stage> stages_;
};

// A layer of a chain with its own state.
template <typename L, typename S>
Chain::Layer WithState(Walk &walk, const L &layer, S state) {
  // std::function wants to be copied.
  return [&walk, &layer, held = std::make_shared<S>(std::move(state))](
             Frames frames, bool last) {
    return layer.Push(walk, *held, std::move(frames), last);
  };
}

// The norm, the activation and the convolution at the end of a half.
Frames PushLast(Walk &walk, const Convolution &conv, Convolution::State &state,
                Frames frames, bool last) {
  Convolution::Window window = conv.Open(walk, state, frames, last);
  walk.NormSilu(frames.elements());
  frames = {};
  return conv.Close(walk, state, std::move(window), last);
}

class Decoder {
public:
  explicit Decoder(Walk &walk)
      : walk_(walk),
        conv_in_(walk, walk.config.latent_channels,
                 walk.config.decoder_channels, {}, walk.config.decoder_causal),
        conv_out_(walk,
                  walk.config.up_blocks.empty()
                      ? walk.config.decoder_channels
                      : walk.config.up_blocks.back().out_channels,
                  walk.config.out_channels * walk.config.patch_size *
                      walk.config.patch_size,
                  {}, walk.config.decoder_causal) {
    const LtxVaeConfig &config = walk.config;
    const bool causal = config.decoder_causal;
    Block &mid = blocks_.emplace_back();
    mid.in_channels = mid.channels = config.decoder_channels;
    for (int i = 0; i < config.decoder_mid_layers; ++i) {
      mid.resnets.emplace_back(walk, mid.channels, mid.channels, causal,
                               config.decoder_mid_inject_noise);
    }
    for (const LtxVaeUpBlock &up : config.up_blocks) {
      Block &block = blocks_.emplace_back();
      block.in_channels = up.in_channels;
      block.channels = up.out_channels;
      if (up.in_channels != up.out_channels) {
        block.conv_in.emplace(walk, up.in_channels, up.out_channels, causal,
                              up.inject_noise);
      }
      if (up.upsample) {
        block.upsampler.emplace(walk, up.out_channels * up.upscale_factor,
                                up.upscale_factor, up.upsample_residual,
                                causal);
      }
      for (int i = 0; i < up.layers; ++i) {
        block.resnets.emplace_back(walk, up.out_channels, up.out_channels,
                                   causal, up.inject_noise);
      }
    }
  }

  // A tile of height x width latents; the largest has `positions`.
  Chain Begin(int64_t height, int64_t width, int64_t positions) const {
    const LtxRunLength runs = walk_.runs();
    Chain chain(walk_);
    chain.Add(WithState(walk_, conv_in_, Convolution::State()),
              runs.Frames(positions * walk_.config.decoder_channels));
    for (const Block &block : blocks_) {
      const auto add_resnet = [&](const Resnet &resnet, int64_t channels) {
        chain.Add(WithState(walk_, resnet, resnet.Start(walk_, height, width)),
                  runs.Frames(positions * channels));
      };
      if (block.conv_in)
        add_resnet(*block.conv_in, std::max(block.in_channels, block.channels));
      if (block.upsampler) {
        height *= 2;
        width *= 2;
        positions *= 4;
        chain.Add(
            WithState(walk_, *block.upsampler, Upsampler::State()),
            runs.Frames(2 * positions * block.channels, /*out_frames=*/2));
      }
      for (const Resnet &resnet : block.resnets)
        add_resnet(resnet, block.channels);
    }
    chain.Add(
        [this, state = std::make_shared<Convolution::State>()](Frames frames,
                                                               bool last) {
          const Frames patches =
              PushLast(walk_, conv_out_, *state, std::move(frames), last);
          const int64_t p = walk_.config.patch_size;
          return MakeFrames(walk_, patches.t, patches.h * p, patches.w * p,
                            patches.c / (p * p));
        },
        runs.Frames(positions * blocks_.back().channels));
    return chain;
  }

private:
  struct Block {
    std::optional<Resnet> conv_in;
    std::optional<Upsampler> upsampler;
    std::vector<Resnet> resnets;
    int64_t in_channels = 0, channels = 0;
  };

  Walk &walk_;
  Convolution conv_in_;
  std::vector<Block> blocks_;
  Convolution conv_out_;
};

class Encoder {
public:
  explicit Encoder(Walk &walk)
      : walk_(walk),
        conv_in_(walk,
                 walk.config.in_channels * walk.config.patch_size *
                     walk.config.patch_size,
                 walk.config.encoder_channels, {}, walk.config.encoder_causal),
        conv_out_(walk, LastChannels(walk.config),
                  walk.config.latent_channels + 1, {},
                  walk.config.encoder_causal) {
    const LtxVaeConfig &config = walk.config;
    const bool causal = config.encoder_causal;
    for (const LtxVaeDownBlock &down : config.down_blocks) {
      Block &block = blocks_.emplace_back();
      block.down = &down;
      for (int i = 0; i < down.layers; ++i) {
        block.resnets.emplace_back(walk, down.in_channels, down.in_channels,
                                   causal, false);
      }
      if (down.downsample == LtxVaeDownBlock::Downsample::kStridedConv) {
        block.strided_conv.emplace(walk, down.in_channels, down.in_channels,
                                   down.stride, causal);
      } else if (down.downsample ==
                 LtxVaeDownBlock::Downsample::kSpaceToDepth) {
        block.downsampler.emplace(walk, down.in_channels, down.out_channels,
                                  down.stride, causal);
      }
      if (down.has_conv_out) {
        block.conv_out.emplace(walk, down.in_channels, down.out_channels,
                               causal, false);
      }
    }
    for (int i = 0; i < config.encoder_mid_layers; ++i) {
      mid_block_.emplace_back(walk, LastChannels(config), LastChannels(config),
                              causal, false);
    }
  }

  Chain Begin(int64_t height, int64_t width) const {
    const LtxRunLength runs = walk_.runs();
    const int64_t p = walk_.config.patch_size;
    int64_t positions = (height / p) * (width / p);
    Chain chain(walk_);
    chain.Add(
        [this, p, state = std::make_shared<Convolution::State>()](Frames video,
                                                                  bool last) {
          const Frames patches = {.t = video.t,
                                  .h = video.h / p,
                                  .w = video.w / p,
                                  .c = video.c * p * p};
          Convolution::Window window =
              conv_in_.Open(walk_, *state, patches, last);
          video = {};
          return conv_in_.Close(walk_, *state, std::move(window), last);
        },
        runs.Frames(positions * walk_.config.encoder_channels));
    bool gathers = false;
    const auto add = [&](Chain::Layer layer, int64_t channels) {
      const int64_t most = runs.Frames(positions * channels);
      chain.Add(std::move(layer), most, gathers ? most : 1);
      gathers = false;
    };
    for (const Block &block : blocks_) {
      for (const Resnet &resnet : block.resnets)
        add(WithState(walk_, resnet, Resnet::State()), block.down->in_channels);
      if (block.strided_conv) {
        add(WithState(walk_, *block.strided_conv, Convolution::State()),
            block.down->in_channels);
      } else if (block.downsampler) {
        add(WithState(walk_, *block.downsampler, Downsampler::State()),
            block.down->in_channels);
      }
      if (block.strided_conv || block.downsampler) {
        positions /= block.down->stride.h * block.down->stride.w;
        gathers = block.down->stride.t > 1;
      }
      if (block.conv_out) {
        add(WithState(walk_, *block.conv_out, Resnet::State()),
            std::max(block.down->in_channels, block.down->out_channels));
      }
    }
    const int64_t channels = LastChannels(walk_.config);
    for (const Resnet &resnet : mid_block_)
      add(WithState(walk_, resnet, Resnet::State()), channels);
    add(
        [this, state = std::make_shared<Convolution::State>()](Frames frames,
                                                               bool last) {
          const Frames out =
              PushLast(walk_, conv_out_, *state, std::move(frames), last);
          return MakeFrames(walk_, out.t, out.h, out.w, 2 * (out.c - 1));
        },
        channels);
    return chain;
  }

private:
  struct Block {
    const LtxVaeDownBlock *down = nullptr;
    std::vector<Resnet> resnets;
    std::optional<Convolution> strided_conv;
    std::optional<Downsampler> downsampler;
    std::optional<Resnet> conv_out;
  };

  static int64_t LastChannels(const LtxVaeConfig &config) {
    return config.down_blocks.empty() ? config.encoder_channels
                                      : config.down_blocks.back().out_channels;
  }

  Walk &walk_;
  Convolution conv_in_;
  std::vector<Block> blocks_;
  std::vector<Resnet> mid_block_;
  Convolution conv_out_;
};

// Sizes of the tiles along one axis, as Slice cuts them.
std::vector<int64_t> TileExtents(int64_t size, int64_t tile, int64_t stride) {
  std::vector<int64_t> extents;
  for (int64_t at = 0; at < size; at += stride)
    extents.push_back(std::min(tile, size - at));
  return extents;
}

struct Size {
  int64_t h = 0, w = 0;
};

// The tiles of a frame that advance through time together: one when it is not
// tiled.
class TiledDecode {
public:
  TiledDecode(Walk &walk, const Decoder &decoder, int64_t frames,
              const Size &latents, const LtxTileSizes &tiles)
      : walk_(walk), latents_(latents) {
    const int64_t ratio = walk.config.spatial_compression_ratio;
    std::vector<int64_t> heights = {latents.h}, widths = {latents.w};
    joins_ = tiles.in_space && (latents.w > tiles.min_width / ratio ||
                                latents.h > tiles.min_height / ratio);
    if (joins_) {
      heights = TileExtents(latents.h, tiles.min_height / ratio,
                            tiles.stride_height / ratio);
      widths = TileExtents(latents.w, tiles.min_width / ratio,
                           tiles.stride_width / ratio);
    }
    for (const int64_t h : heights) {
      for (const int64_t w : widths) {
        // The first is the largest.
        chains_.push_back(decoder.Begin(h, w, heights[0] * widths[0]));
        chains_.back().Push(
            {.t = frames, .h = h, .w = w, .c = walk.config.latent_channels},
            /*last=*/true);
      }
    }
  }

  bool done() const { return chains_[0].done(); }
  Frames Next() {
    std::vector<Frames> tiles;
    for (Chain &chain : chains_)
      tiles.push_back(chain.Next());
    if (!joins_ || tiles[0].t == 0)
      return tiles[0];
    const int64_t ratio = walk_.config.spatial_compression_ratio;
    return MakeFrames(walk_, tiles[0].t, latents_.h * ratio, latents_.w * ratio,
                      tiles[0].c);
  }

private:
  Walk &walk_;
  Size latents_;
  bool joins_ = false;
  std::vector<Chain> chains_;
};

// diffusers' postprocessing, and float32 on the host.
void Deliver(Walk &walk, const Frames &pixels) {
  const HeldBytes scaled = walk.Hold(pixels.elements());
  if (walk.options.element_bytes != kFloatBytes)
    walk.ledger.Touch(pixels.elements() * kFloatBytes);
}

void DecodeUntiledInTime(Walk &walk, const Decoder &decoder, int64_t frames,
                         const Size &latents, const LtxTileSizes &tiles) {
  TiledDecode stream(walk, decoder, frames, latents, tiles);
  while (!stream.done()) {
    const Frames pixels = stream.Next();
    if (pixels.t > 0)
      Deliver(walk, pixels);
  }
}

void DecodeTiledInTime(Walk &walk, const Decoder &decoder, int64_t frames,
                       const Size &latents, const LtxTileSizes &tiles) {
  const int64_t ratio = walk.config.temporal_compression_ratio;
  HeldBytes overlap;
  for (int64_t next = 0; next < frames; next += tiles.stride_frames / ratio) {
    Frames tile;
    {
      std::vector<Frames> decoded;
      TiledDecode stream(walk, decoder,
                         std::min(tiles.min_frames / ratio + 1, frames - next),
                         latents, tiles);
      int64_t count = 0;
      while (!stream.done()) {
        Frames pixels = stream.Next();
        count += pixels.t;
        if (pixels.t > 0)
          decoded.push_back(std::move(pixels));
      }
      tile = MakeFrames(walk, count, decoded[0].h, decoded[0].w, decoded[0].c);
    }
    const int64_t kept =
        std::min(tiles.min_frames - tiles.stride_frames, tile.t);
    HeldBytes last = walk.Hold(kept * tile.h * tile.w * tile.c);
    overlap = std::move(last);
    Frames out = tile;
    out.t = std::min(tiles.stride_frames + (next == 0 ? 1 : 0), tile.t);
    Deliver(walk, out);
  }
}

// Pixels of a run as they come from the host's bytes, in the dtype of
// computation.
Frames Read(Walk &walk, int64_t frames, const Size &pixels) {
  const int64_t elements =
      frames * pixels.h * pixels.w * walk.config.in_channels;
  HeldBytes floats(walk.ledger,
                   walk.options.on_gpu ? 0 : elements * kFloatBytes);
  Frames run = {
      .t = frames, .h = pixels.h, .w = pixels.w, .c = walk.config.in_channels};
  if (walk.options.on_gpu || walk.options.element_bytes != kFloatBytes)
    return MakeFrames(walk, run.t, run.h, run.w, run.c);
  run.held = std::make_shared<const HeldBytes>(std::move(floats));
  return run;
}

Frames EncodeWhole(Walk &walk, const Encoder &encoder, int64_t frames,
                   const Size &pixels) {
  Chain chain = encoder.Begin(pixels.h, pixels.w);
  std::vector<Frames> moments;
  int64_t known = 0;
  for (int64_t next = 0; next < frames; next += chain.first_run()) {
    const int64_t count = std::min(chain.first_run(), frames - next);
    chain.Push(Read(walk, count, pixels), next + count == frames);
    for (Frames more = chain.Next(); more.t > 0; more = chain.Next()) {
      known += more.t;
      moments.push_back(std::move(more));
    }
  }
  const Frames joined =
      MakeFrames(walk, known, moments[0].h, moments[0].w, moments[0].c);
  return MakeFrames(walk, known, joined.h, joined.w, joined.c);
}

Frames EncodeUntiledInTime(Walk &walk, const Encoder &encoder, int64_t frames,
                           const Size &pixels, const LtxTileSizes &tiles) {
  if (!tiles.in_space ||
      (pixels.w <= tiles.min_width && pixels.h <= tiles.min_height)) {
    return EncodeWhole(walk, encoder, frames, pixels);
  }
  std::vector<Frames> moments;
  for (const int64_t h :
       TileExtents(pixels.h, tiles.min_height, tiles.stride_height)) {
    for (const int64_t w :
         TileExtents(pixels.w, tiles.min_width, tiles.stride_width)) {
      moments.push_back(EncodeWhole(walk, encoder, frames, {.h = h, .w = w}));
    }
  }
  const int64_t ratio = walk.config.spatial_compression_ratio;
  return MakeFrames(walk, moments[0].t, pixels.h / ratio, pixels.w / ratio,
                    moments[0].c);
}

void EncodeTiledInTime(Walk &walk, const Encoder &encoder, int64_t frames,
                       const Size &pixels, const LtxTileSizes &tiles) {
  std::vector<Frames> joined;
  for (int64_t next = 0; next < frames; next += tiles.stride_frames) {
    joined.push_back(EncodeUntiledInTime(
        walk, encoder, std::min(tiles.min_frames + 1, frames - next), pixels,
        tiles));
  }
}

// Of a video `longer` times as long as the one walked through.
LtxVaePeak Result(const Walk &walk, double longer) {
  return {.bytes = walk.ledger.peak(),
          .flops = walk.flops * longer,
          .passes = static_cast<int64_t>(
              std::ceil(walk.weights_used / walk.weights * longer))};
}

} // namespace

LtxVaePeak LtxDecodePeak(const LtxVaeConfig &config, int64_t frames,
                         int64_t height, int64_t width,
                         const LtxTileSizes &tiles,
                         const LtxVaeWalkOptions &options) {
  Walk walk = {.config = config, .options = options};
  const Decoder decoder(walk);
  const Size latents = {.h = height, .w = width};
  const int64_t walked = std::min(frames, kFramesWalked);
  if (tiles.in_time &&
      frames > tiles.min_frames / config.temporal_compression_ratio) {
    DecodeTiledInTime(walk, decoder, walked, latents, tiles);
  } else {
    DecodeUntiledInTime(walk, decoder, walked, latents, tiles);
  }
  return Result(walk,
                static_cast<double>(frames) / static_cast<double>(walked));
}

LtxVaePeak LtxEncodePeak(const LtxVaeConfig &config, int64_t frames,
                         int64_t height, int64_t width,
                         const LtxTileSizes &tiles,
                         const LtxVaeWalkOptions &options) {
  Walk walk = {.config = config, .options = options};
  const Encoder encoder(walk);
  const Size pixels = {.h = height, .w = width};
  if (tiles.in_time && frames > tiles.min_frames) {
    EncodeTiledInTime(walk, encoder, frames, pixels, tiles);
  } else {
    EncodeUntiledInTime(walk, encoder, frames, pixels, tiles);
  }
  return Result(walk, 1);
}

} // namespace kino::engine
