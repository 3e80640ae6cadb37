#include "engine/models/ltx/memory_vae.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/describe/live_bytes.h"

namespace kino::engine {
namespace {

constexpr int64_t kKernel = 3;
constexpr int64_t kFloatBytes = 4;
constexpr int kEncodeFramesPerPush = 16;  // as vae.cc
// oneDNN pads the channels of a weight to whole vectors.
constexpr int64_t kPackedChannels = 16;

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// What every layer of one walk shares.
struct Walk {
  const LtxVaeConfig& config;
  const LtxVaeWalkOptions& options;
  LiveBytes ledger = {};
  double flops = 0;
  int64_t passes = 0;

  HeldBytes Hold(int64_t elements) { return {ledger, elements * options.element_bytes}; }
  // The norm's float32 steps where it is not fused.
  void NormSilu(int64_t elements) {
    if (options.norm_is_fused) return;
    ledger.Touch(elements * kFloatBytes * (options.element_bytes == kFloatBytes ? 1 : 2));
  }
};

// [t, h, w, c]; the bytes may be those of a larger tensor it is a part of.
struct Frames {
  int64_t t = 0, h = 0, w = 0, c = 0;
  HeldBytes held = {};
  int64_t elements() const { return t * h * w * c; }
};

Frames MakeFrames(Walk& walk, int64_t t, int64_t h, int64_t w, int64_t c) {
  return {.t = t, .h = h, .w = w, .c = c, .held = walk.Hold(t * h * w * c)};
}

bool Idle(const Frames& frames, bool last) { return frames.t == 0 && !last; }

struct FrameQueue {
  int64_t t = 0;
  HeldBytes held;

  void Keep(Walk& walk, const Frames& fresh, int64_t count) {
    const int64_t rest = t + fresh.t - count;
    HeldBytes next = walk.Hold(rest * fresh.h * fresh.w * fresh.c);
    held = std::move(next);
    t = rest;
  }
  void AddTo(Walk& walk, int64_t count, const Frames& fresh) { Keep(walk, fresh, count); }
  // Joined when some of it was held; else a view of `fresh`.
  Frames Exchange(Walk& walk, const Frames& fresh, int64_t count) {
    Frames taken = {.t = count, .h = fresh.h, .w = fresh.w, .c = fresh.c};
    if (std::min(t, count) > 0) taken.held = walk.Hold(taken.elements());
    Keep(walk, fresh, count);
    return taken;
  }
};

class Convolution {
 public:
  struct State {
    std::optional<int64_t> tail_frames;
    HeldBytes tail;
    std::shared_ptr<const HeldBytes> packed;
  };
  struct Window {
    HeldBytes buffer;
    int64_t length = 0, h = 0, w = 0;
  };

  Convolution(int64_t in, int64_t out, const LtxVaeStride& stride, bool causal)
      : in_(in), out_(out), stride_(stride), causal_(causal) {}

  Window Open(Walk& walk, const State& state, const Frames& fresh, bool last) const {
    const int64_t lead =
        state.tail_frames ? *state.tail_frames : (causal_ ? kKernel - 1 : kKernel / 2);
    const int64_t trail = last && !causal_ ? kKernel / 2 : 0;
    const int64_t length = lead + fresh.t + trail;
    return {.buffer = walk.Hold(length * fresh.h * fresh.w * in_),
            .length = length,
            .h = fresh.h,
            .w = fresh.w};
  }

  Frames Close(Walk& walk, State& state, Window window, bool last) const {
    const int64_t h = (window.h - 1) / stride_.h + 1, w = (window.w - 1) / stride_.w + 1;
    if (window.length < kKernel) {
      if (last) {
        state.tail.Release();
        state.tail_frames.reset();
      } else {
        state.tail = std::move(window.buffer);
        state.tail_frames = window.length;
      }
      return {.t = 0, .h = h, .w = w, .c = out_};
    }
    const int64_t count = (window.length - kKernel) / stride_.t + 1;
    if (last) {
      state.tail.Release();
    } else {
      state.tail_frames = window.length - count * stride_.t;
      HeldBytes tail = walk.Hold(*state.tail_frames * window.h * window.w * in_);
      state.tail = std::move(tail);
    }
    const int64_t weight = out_ * in_ * kKernel * kKernel * kKernel;
    if (walk.options.packs_weights && state.packed == nullptr) {
      state.packed = packed_.lock();
      if (state.packed == nullptr) {
        const HeldBytes dense = walk.Hold(weight);
        state.packed = std::make_shared<const HeldBytes>(
            walk.Hold(RoundUp(out_, kPackedChannels) * RoundUp(in_, kPackedChannels) * kKernel *
                      kKernel * kKernel));
        packed_ = state.packed;
      }
    }
    Frames out = MakeFrames(walk, count, h, w, out_);
    walk.flops += 2.0 * static_cast<double>(weight) * static_cast<double>(count * h * w);
    // Without a packed weight the convolution reorders it each time.
    if (!walk.options.packs_weights) {
      walk.ledger.Touch(weight * walk.options.element_bytes);
    }
    return out;
  }

  Frames Push(Walk& walk, State& state, const Frames& frames, bool last) const {
    return Close(walk, state, Open(walk, state, frames, last), last);
  }

 private:
  int64_t in_, out_;
  LtxVaeStride stride_;
  bool causal_;
  mutable std::weak_ptr<const HeldBytes> packed_;
};

class Resnet {
 public:
  struct State {
    Convolution::State conv1, conv2;
    FrameQueue shortcut;
    HeldBytes noise;
  };

  Resnet(int64_t in, int64_t out, bool causal, bool injects_noise)
      : conv1_(in, out, {}, causal),
        conv2_(out, out, {}, causal),
        out_(out),
        has_shortcut_(in != out),
        injects_noise_(injects_noise) {}

  void Start(Walk& walk, State& state, int64_t height, int64_t width) const {
    if (injects_noise_) state.noise = walk.Hold(2 * height * width);
  }

  Frames Push(Walk& walk, State& state, const Frames& frames, bool last) const {
    Convolution::Window window = conv1_.Open(walk, state.conv1, frames, last);
    walk.NormSilu(frames.elements());
    Frames hidden = conv1_.Close(walk, state.conv1, std::move(window), last);
    AddNoise(walk, hidden);
    if (hidden.t > 0 || last) {
      window = conv2_.Open(walk, state.conv2, hidden, last);
      walk.NormSilu(hidden.elements());
      hidden = conv2_.Close(walk, state.conv2, std::move(window), last);
      AddNoise(walk, hidden);
    }
    Frames shortcut = {.t = frames.t, .h = frames.h, .w = frames.w, .c = out_};
    if (has_shortcut_) {
      const HeldBytes normed = walk.Hold(frames.elements());
      shortcut.held = walk.Hold(shortcut.elements());
    }
    state.shortcut.AddTo(walk, hidden.t, shortcut);
    return hidden;
  }

 private:
  void AddNoise(Walk& walk, const Frames& hidden) const {
    if (injects_noise_) {
      walk.ledger.Touch(hidden.h * hidden.w * hidden.c * walk.options.element_bytes);
    }
  }

  Convolution conv1_, conv2_;
  int64_t out_;
  bool has_shortcut_, injects_noise_;
};

class Downsampler {
 public:
  struct State {
    Convolution::State conv;
    FrameQueue conv_frames, residual_frames;
    bool started = false;
  };

  Downsampler(int64_t in, int64_t out, const LtxVaeStride& stride, bool causal)
      : conv_(in, out / stride.product(), {}, causal), out_(out), stride_(stride) {}

  Frames Push(Walk& walk, State& state, const Frames& frames, bool last) const {
    Frames input = {.t = frames.t, .h = frames.h, .w = frames.w, .c = frames.c};
    if (!state.started && frames.t > 0) {
      if (stride_.t > 1) {
        input.t += std::min(stride_.t - 1, frames.t);
        input.held = walk.Hold(input.elements());
      }
      state.started = true;
    }
    const Frames hidden = conv_.Push(walk, state.conv, input, last);
    const int64_t ready = (state.conv_frames.t + hidden.t) / stride_.t * stride_.t;
    Frames out = Join(walk, state.conv_frames.Exchange(walk, hidden, ready), out_);
    const Frames joined = state.residual_frames.Exchange(walk, input, ready);
    const Frames residual = Join(walk, joined, joined.c * stride_.product());
    walk.ledger.Touch(out.held.bytes());  // the residual's mean
    return out;
  }

 private:
  Frames Join(Walk& walk, const Frames& x, int64_t channels) const {
    return MakeFrames(walk, x.t / stride_.t, x.h / stride_.h, x.w / stride_.w, channels);
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

  Upsampler(int64_t in, int64_t upscale_factor, bool residual, bool causal)
      : conv_(in, in * kScale / upscale_factor, {}, causal), residual_(residual) {}

  Frames Push(Walk& walk, State& state, const Frames& frames, bool last) const {
    const Frames hidden = conv_.Push(walk, state.conv, frames, last);
    Frames out = Spread(walk, hidden);
    if (residual_) {
      const Frames waiting = state.residual_frames.Exchange(walk, frames, hidden.t);
      const Frames residual = Spread(walk, waiting);
    }
    if (!state.started && hidden.t > 0) {
      state.started = true;
      out.t -= 1;  // the bytes stay
    }
    return out;
  }

 private:
  static constexpr int64_t kScale = 8;
  static Frames Spread(Walk& walk, const Frames& x) {
    return MakeFrames(walk, x.t * 2, x.h * 2, x.w * 2, x.c / kScale);
  }

  Convolution conv_;
  bool residual_;
};

class Decoder {
 public:
  struct BlockState {
    Resnet::State conv_in;
    Upsampler::State upsampler;
    std::vector<Resnet::State> resnets;
  };
  struct State {
    Convolution::State conv_in;
    std::vector<BlockState> blocks;
    Convolution::State conv_out;
  };

  explicit Decoder(const LtxVaeConfig& config)
      : conv_in_(config.latent_channels, config.decoder_channels, {}, config.decoder_causal),
        conv_out_(config.up_blocks.empty() ? config.decoder_channels
                                           : config.up_blocks.back().out_channels,
                  config.out_channels * config.patch_size * config.patch_size, {},
                  config.decoder_causal) {
    Block& mid = blocks_.emplace_back();
    for (int i = 0; i < config.decoder_mid_layers; ++i) {
      mid.resnets.emplace_back(config.decoder_channels, config.decoder_channels,
                               config.decoder_causal, config.decoder_mid_inject_noise);
    }
    for (const LtxVaeUpBlock& up : config.up_blocks) {
      Block& block = blocks_.emplace_back();
      if (up.in_channels != up.out_channels) {
        block.conv_in.emplace(up.in_channels, up.out_channels, config.decoder_causal,
                              up.inject_noise);
      }
      if (up.upsample) {
        block.upsampler.emplace(up.out_channels * up.upscale_factor, up.upscale_factor,
                                up.upsample_residual, config.decoder_causal);
      }
      for (int i = 0; i < up.layers; ++i) {
        block.resnets.emplace_back(up.out_channels, up.out_channels, config.decoder_causal,
                                   up.inject_noise);
      }
    }
  }

  State Start(Walk& walk, int64_t height, int64_t width) const {
    State state;
    for (const Block& block : blocks_) {
      BlockState& block_state = state.blocks.emplace_back();
      if (block.conv_in) block.conv_in->Start(walk, block_state.conv_in, height, width);
      if (block.upsampler) {
        height *= 2;
        width *= 2;
      }
      for (const Resnet& resnet : block.resnets) {
        resnet.Start(walk, block_state.resnets.emplace_back(), height, width);
      }
    }
    return state;
  }

  // Pixels, or nothing (t = 0).
  Frames Push(Walk& walk, State& state, const Frames& latents, bool last) const {
    ++walk.passes;
    Frames frames = conv_in_.Push(walk, state.conv_in, latents, last);
    for (size_t i = 0; i < blocks_.size() && !Idle(frames, last); ++i) {
      frames = PushBlock(walk, blocks_[i], state.blocks[i], std::move(frames), last);
    }
    if (Idle(frames, last)) return {};
    Convolution::Window window = conv_out_.Open(walk, state.conv_out, frames, last);
    walk.NormSilu(frames.elements());
    frames = {};
    const Frames patches = conv_out_.Close(walk, state.conv_out, std::move(window), last);
    const int64_t p = walk.config.patch_size;
    return MakeFrames(walk, patches.t, patches.h * p, patches.w * p, patches.c / (p * p));
  }

 private:
  struct Block {
    std::optional<Resnet> conv_in;
    std::optional<Upsampler> upsampler;
    std::vector<Resnet> resnets;
  };

  static Frames PushBlock(Walk& walk, const Block& block, BlockState& state, Frames frames,
                          bool last) {
    if (block.conv_in) frames = block.conv_in->Push(walk, state.conv_in, frames, last);
    if (block.upsampler && !Idle(frames, last)) {
      frames = block.upsampler->Push(walk, state.upsampler, frames, last);
    }
    for (size_t i = 0; i < block.resnets.size() && !Idle(frames, last); ++i) {
      frames = block.resnets[i].Push(walk, state.resnets[i], frames, last);
    }
    return frames;
  }

  Convolution conv_in_;
  std::vector<Block> blocks_;
  Convolution conv_out_;
};

class Encoder {
 public:
  struct DownState {
    std::vector<Resnet::State> resnets;
    Convolution::State strided_conv;
    Downsampler::State downsampler;
    Resnet::State conv_out;
  };
  struct State {
    Convolution::State conv_in;
    std::vector<DownState> down_blocks;
    std::vector<Resnet::State> mid_block;
    Convolution::State conv_out;
  };

  explicit Encoder(const LtxVaeConfig& config)
      : conv_in_(config.in_channels * config.patch_size * config.patch_size,
                 config.encoder_channels, {}, config.encoder_causal),
        conv_out_(LastChannels(config), config.latent_channels + 1, {}, config.encoder_causal) {
    for (const LtxVaeDownBlock& down : config.down_blocks) {
      Block& block = blocks_.emplace_back();
      for (int i = 0; i < down.layers; ++i) {
        block.resnets.emplace_back(down.in_channels, down.in_channels, config.encoder_causal,
                                   false);
      }
      if (down.downsample == LtxVaeDownBlock::Downsample::kStridedConv) {
        block.strided_conv.emplace(down.in_channels, down.in_channels, down.stride,
                                   config.encoder_causal);
      } else if (down.downsample == LtxVaeDownBlock::Downsample::kSpaceToDepth) {
        block.downsampler.emplace(down.in_channels, down.out_channels, down.stride,
                                  config.encoder_causal);
      }
      if (down.has_conv_out) {
        block.conv_out.emplace(down.in_channels, down.out_channels, config.encoder_causal, false);
      }
    }
    for (int i = 0; i < config.encoder_mid_layers; ++i) {
      mid_block_.emplace_back(LastChannels(config), LastChannels(config), config.encoder_causal,
                              false);
    }
  }

  State Start() const {
    State state;
    for (const Block& block : blocks_) {
      state.down_blocks.emplace_back().resnets.resize(block.resnets.size());
    }
    state.mid_block.resize(mid_block_.size());
    return state;
  }

  // Moments [t, h, w, 2 C], or nothing.
  Frames Push(Walk& walk, State& state, const Frames& video, bool last) const {
    ++walk.passes;
    const int64_t p = walk.config.patch_size;
    Frames frames;
    {
      const Frames patches = MakeFrames(walk, video.t, video.h / p, video.w / p, video.c * p * p);
      frames = conv_in_.Push(walk, state.conv_in, patches, last);
    }
    for (size_t i = 0; i < blocks_.size() && !Idle(frames, last); ++i) {
      frames = PushBlock(walk, blocks_[i], state.down_blocks[i], std::move(frames), last);
    }
    for (size_t i = 0; i < mid_block_.size() && !Idle(frames, last); ++i) {
      frames = mid_block_[i].Push(walk, state.mid_block[i], frames, last);
    }
    if (Idle(frames, last)) return {};
    Convolution::Window window = conv_out_.Open(walk, state.conv_out, frames, last);
    walk.NormSilu(frames.elements());
    const Frames out = conv_out_.Close(walk, state.conv_out, std::move(window), last);
    const int64_t channels = 2 * (out.c - 1);
    const HeldBytes joined = walk.Hold(out.t * out.h * out.w * channels);
    return MakeFrames(walk, out.t, out.h, out.w, channels);
  }

 private:
  struct Block {
    std::vector<Resnet> resnets;
    std::optional<Convolution> strided_conv;
    std::optional<Downsampler> downsampler;
    std::optional<Resnet> conv_out;
  };

  static int64_t LastChannels(const LtxVaeConfig& config) {
    return config.down_blocks.empty() ? config.encoder_channels
                                      : config.down_blocks.back().out_channels;
  }

  static Frames PushBlock(Walk& walk, const Block& block, DownState& state, Frames frames,
                          bool last) {
    for (size_t i = 0; i < block.resnets.size() && !Idle(frames, last); ++i) {
      frames = block.resnets[i].Push(walk, state.resnets[i], frames, last);
    }
    if (Idle(frames, last)) return frames;
    if (block.strided_conv) {
      frames = block.strided_conv->Push(walk, state.strided_conv, frames, last);
    }
    if (block.downsampler) {
      frames = block.downsampler->Push(walk, state.downsampler, frames, last);
    }
    if (block.conv_out && !Idle(frames, last)) {
      frames = block.conv_out->Push(walk, state.conv_out, frames, last);
    }
    return frames;
  }

  Convolution conv_in_;
  std::vector<Block> blocks_;
  std::vector<Resnet> mid_block_;
  Convolution conv_out_;
};

// Sizes of the tiles along one axis, as Slice cuts them.
std::vector<int64_t> TileExtents(int64_t size, int64_t tile, int64_t stride) {
  std::vector<int64_t> extents;
  for (int64_t at = 0; at < size; at += stride) extents.push_back(std::min(tile, size - at));
  return extents;
}

struct Size {
  int64_t h = 0, w = 0;
};

// The tiles of a frame that advance through time together: one when it is not tiled.
class TiledDecode {
 public:
  TiledDecode(Walk& walk, const Decoder& decoder, int64_t frames, const Size& latents,
              const LtxTileSizes& tiles)
      : walk_(walk), decoder_(decoder), frames_(frames), latents_(latents) {
    const int64_t ratio = walk.config.spatial_compression_ratio;
    std::vector<int64_t> heights = {latents.h}, widths = {latents.w};
    joins_ = tiles.in_space &&
             (latents.w > tiles.min_width / ratio || latents.h > tiles.min_height / ratio);
    if (joins_) {
      heights = TileExtents(latents.h, tiles.min_height / ratio, tiles.stride_height / ratio);
      widths = TileExtents(latents.w, tiles.min_width / ratio, tiles.stride_width / ratio);
    }
    for (const int64_t h : heights) {
      for (const int64_t w : widths) {
        sizes_.push_back({.h = h, .w = w});
        states_.push_back(decoder.Start(walk, h, w));
      }
    }
  }

  bool done() const { return next_ == frames_; }

  Frames Next() {
    ++next_;
    std::vector<Frames> tiles;
    for (size_t i = 0; i < states_.size(); ++i) {
      const Frames run = {
          .t = 1, .h = sizes_[i].h, .w = sizes_[i].w, .c = walk_.config.latent_channels};
      tiles.push_back(decoder_.Push(walk_, states_[i], run, done()));
    }
    if (!joins_ || tiles[0].t == 0) return std::move(tiles[0]);
    const int64_t ratio = walk_.config.spatial_compression_ratio;
    return MakeFrames(walk_, tiles[0].t, latents_.h * ratio, latents_.w * ratio, tiles[0].c);
  }

  // The layers' states are what they will be before the last push.
  void SkipToLast() { next_ = frames_ - 1; }
  int64_t left() const { return frames_ - next_; }

 private:
  Walk& walk_;
  const Decoder& decoder_;
  int64_t frames_;
  Size latents_;
  bool joins_ = false;
  std::vector<Size> sizes_;
  std::vector<Decoder::State> states_;
  int64_t next_ = 0;
};

// diffusers' postprocessing, and float32 on the host.
void Deliver(Walk& walk, const Frames& pixels) {
  const int64_t elements = pixels.elements();
  const HeldBytes scaled = walk.Hold(elements), moved = walk.Hold(elements);
  if (walk.options.element_bytes != kFloatBytes) walk.ledger.Touch(elements * kFloatBytes);
}

void DecodeUntiledInTime(Walk& walk, const Decoder& decoder, int64_t frames, const Size& latents,
                         const LtxTileSizes& tiles) {
  TiledDecode stream(walk, decoder, frames, latents, tiles);
  int pushes_with_frames = 0;
  while (!stream.done()) {
    const double flops_before = walk.flops;
    const int64_t passes_before = walk.passes;
    const Frames pixels = stream.Next();
    if (pixels.t > 0) {
      Deliver(walk, pixels);
      ++pushes_with_frames;
    }
    // From the second push with frames on, each is like the one before until the last.
    if (pushes_with_frames == 3 && stream.left() > 1) {
      const int64_t skipped = stream.left() - 1;
      walk.flops += static_cast<double>(skipped) * (walk.flops - flops_before);
      walk.passes += skipped * (walk.passes - passes_before);
      stream.SkipToLast();
    }
  }
}

void DecodeTiledInTime(Walk& walk, const Decoder& decoder, int64_t frames, const Size& latents,
                       const LtxTileSizes& tiles) {
  const int64_t ratio = walk.config.temporal_compression_ratio;
  Frames previous;
  for (int64_t next = 0; next < frames; next += tiles.stride_frames / ratio) {
    std::vector<Frames> decoded;
    {
      TiledDecode stream(walk, decoder, std::min(tiles.min_frames / ratio + 1, frames - next),
                         latents, tiles);
      while (!stream.done()) {
        Frames pixels = stream.Next();
        if (pixels.t > 0) decoded.push_back(std::move(pixels));
      }
      int64_t count = 0;
      for (const Frames& pixels : decoded) count += pixels.t;
      Frames tile =
          MakeFrames(walk, count, decoded[0].h, decoded[0].w, decoded[0].c);  // joined in time
      decoded.clear();
      previous = std::move(tile);
    }
    Deliver(walk, {.t = std::min(tiles.stride_frames + (next == 0 ? 1 : 0), previous.t),
                   .h = previous.h,
                   .w = previous.w,
                   .c = previous.c});
  }
}

Frames EncodeWhole(Walk& walk, const Encoder& encoder, int64_t frames, const Size& pixels) {
  Encoder::State state = encoder.Start();
  std::vector<Frames> moments;
  int64_t count = 0;
  for (int64_t next = 0; next < frames; next += kEncodeFramesPerPush) {
    const Frames run = {.t = std::min<int64_t>(kEncodeFramesPerPush, frames - next),
                        .h = pixels.h,
                        .w = pixels.w,
                        .c = walk.config.in_channels};
    Frames known = encoder.Push(walk, state, run, next + kEncodeFramesPerPush >= frames);
    count += known.t;
    if (known.t > 0) moments.push_back(std::move(known));
  }
  if (moments.size() == 1) return std::move(moments[0]);
  return MakeFrames(walk, count, moments[0].h, moments[0].w, moments[0].c);
}

Frames EncodeUntiledInTime(Walk& walk, const Encoder& encoder, int64_t frames, const Size& pixels,
                           const LtxTileSizes& tiles) {
  if (!tiles.in_space || (pixels.w <= tiles.min_width && pixels.h <= tiles.min_height)) {
    return EncodeWhole(walk, encoder, frames, pixels);
  }
  std::vector<Frames> moments;
  for (const int64_t h : TileExtents(pixels.h, tiles.min_height, tiles.stride_height)) {
    for (const int64_t w : TileExtents(pixels.w, tiles.min_width, tiles.stride_width)) {
      moments.push_back(EncodeWhole(walk, encoder, frames, {.h = h, .w = w}));
    }
  }
  const int64_t ratio = walk.config.spatial_compression_ratio;
  return MakeFrames(walk, moments[0].t, pixels.h / ratio, pixels.w / ratio, moments[0].c);
}

void EncodeTiledInTime(Walk& walk, const Encoder& encoder, int64_t frames, const Size& pixels,
                       const LtxTileSizes& tiles) {
  std::vector<Frames> joined;
  for (int64_t next = 0; next < frames; next += tiles.stride_frames) {
    joined.push_back(EncodeUntiledInTime(
        walk, encoder, std::min(tiles.min_frames + 1, frames - next), pixels, tiles));
  }
}

}  // namespace

LtxVaePeak LtxDecodePeak(const LtxVaeConfig& config, int64_t frames, int64_t height, int64_t width,
                         const LtxTileSizes& tiles, const LtxVaeWalkOptions& options) {
  Walk walk = {.config = config, .options = options};
  const Decoder decoder(config);
  const Size latents = {.h = height, .w = width};
  if (tiles.in_time && frames > tiles.min_frames / config.temporal_compression_ratio) {
    DecodeTiledInTime(walk, decoder, frames, latents, tiles);
  } else {
    DecodeUntiledInTime(walk, decoder, frames, latents, tiles);
  }
  return {.bytes = walk.ledger.peak(), .flops = walk.flops, .passes = walk.passes};
}

LtxVaePeak LtxEncodePeak(const LtxVaeConfig& config, int64_t frames, int64_t height, int64_t width,
                         const LtxTileSizes& tiles, const LtxVaeWalkOptions& options) {
  Walk walk = {.config = config, .options = options};
  const Encoder encoder(config);
  const Size pixels = {.h = height, .w = width};
  if (tiles.in_time && frames > tiles.min_frames) {
    EncodeTiledInTime(walk, encoder, frames, pixels, tiles);
  } else {
    EncodeUntiledInTime(walk, encoder, frames, pixels, tiles);
  }
  return {.bytes = walk.ledger.peak(), .flops = walk.flops, .passes = walk.passes};
}

}  // namespace kino::engine
