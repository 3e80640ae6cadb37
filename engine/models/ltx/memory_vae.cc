#include "engine/models/ltx/memory_vae.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/models/ltx/memory_vae_chain.h"
#include "engine/models/ltx/memory_vae_layers.h"

namespace kino::engine {
namespace {

// A longer video holds no more: every layer has its neighbours in time by then.
constexpr int64_t kFramesWalked = 32;

// The norm, the activation and the convolution at the end of a half.
LtxWalkFrames PushLast(LtxWalk& walk, const LtxWalkConvolution& conv,
                       LtxWalkConvolution::State& state, LtxWalkFrames frames, bool last) {
  LtxWalkConvolution::Window window = conv.Open(walk, state, frames, last);
  walk.NormSilu(frames.elements());
  frames = {};
  return conv.Close(walk, state, std::move(window), last);
}

class Decoder {
 public:
  explicit Decoder(LtxWalk& walk)
      : walk_(walk),
        conv_in_(walk, walk.config.latent_channels, walk.config.decoder_channels, {},
                 walk.config.decoder_causal),
        conv_out_(walk,
                  walk.config.up_blocks.empty() ? walk.config.decoder_channels
                                                : walk.config.up_blocks.back().out_channels,
                  walk.config.out_channels * walk.config.patch_size * walk.config.patch_size, {},
                  walk.config.decoder_causal) {
    const LtxVaeConfig& config = walk.config;
    const bool causal = config.decoder_causal;
    Block& mid = blocks_.emplace_back();
    mid.in_channels = mid.channels = config.decoder_channels;
    for (int i = 0; i < config.decoder_mid_layers; ++i) {
      mid.resnets.emplace_back(walk, mid.channels, mid.channels, causal,
                               config.decoder_mid_inject_noise);
    }
    for (const LtxVaeUpBlock& up : config.up_blocks) {
      Block& block = blocks_.emplace_back();
      block.in_channels = up.in_channels;
      block.channels = up.out_channels;
      if (up.in_channels != up.out_channels) {
        block.conv_in.emplace(walk, up.in_channels, up.out_channels, causal, up.inject_noise);
      }
      if (up.upsample) {
        block.upsampler.emplace(walk, up.out_channels * up.upscale_factor, up.upscale_factor,
                                up.upsample_residual, causal);
      }
      for (int i = 0; i < up.layers; ++i) {
        block.resnets.emplace_back(walk, up.out_channels, up.out_channels, causal, up.inject_noise);
      }
    }
  }

  // A tile of height x width latents; the largest has `positions`.
  LtxWalkChain Begin(int64_t height, int64_t width, int64_t positions) const {
    const LtxRunLength runs = walk_.runs();
    LtxWalkChain chain(walk_);
    chain.Add(WithLtxWalkState(walk_, conv_in_, LtxWalkConvolution::State()),
              runs.Frames(positions * walk_.config.decoder_channels));
    for (const Block& block : blocks_) {
      const auto add_resnet = [&](const LtxWalkResnet& resnet, int64_t channels) {
        chain.Add(WithLtxWalkState(walk_, resnet, resnet.Start(walk_, height, width)),
                  runs.Frames(positions * channels));
      };
      if (block.conv_in) add_resnet(*block.conv_in, std::max(block.in_channels, block.channels));
      if (block.upsampler) {
        height *= 2;
        width *= 2;
        positions *= 4;
        chain.Add(WithLtxWalkState(walk_, *block.upsampler, LtxWalkUpsampler::State()),
                  runs.Frames(2 * positions * block.channels, /*out_frames=*/2));
      }
      for (const LtxWalkResnet& resnet : block.resnets) add_resnet(resnet, block.channels);
    }
    chain.Add(
        [this, state = std::make_shared<LtxWalkConvolution::State>()](LtxWalkFrames frames,
                                                                      bool last) {
          const LtxWalkFrames patches = PushLast(walk_, conv_out_, *state, std::move(frames), last);
          const int64_t p = walk_.config.patch_size;
          return MakeLtxWalkFrames(walk_, patches.t, patches.h * p, patches.w * p,
                                   patches.c / (p * p));
        },
        runs.Frames(positions * blocks_.back().channels));
    return chain;
  }

 private:
  struct Block {
    std::optional<LtxWalkResnet> conv_in;
    std::optional<LtxWalkUpsampler> upsampler;
    std::vector<LtxWalkResnet> resnets;
    int64_t in_channels = 0, channels = 0;
  };

  LtxWalk& walk_;
  LtxWalkConvolution conv_in_;
  std::vector<Block> blocks_;
  LtxWalkConvolution conv_out_;
};

class Encoder {
 public:
  explicit Encoder(LtxWalk& walk)
      : walk_(walk),
        conv_in_(walk, walk.config.in_channels * walk.config.patch_size * walk.config.patch_size,
                 walk.config.encoder_channels, {}, walk.config.encoder_causal),
        conv_out_(walk, LastChannels(walk.config), walk.config.latent_channels + 1, {},
                  walk.config.encoder_causal) {
    const LtxVaeConfig& config = walk.config;
    const bool causal = config.encoder_causal;
    for (const LtxVaeDownBlock& down : config.down_blocks) {
      Block& block = blocks_.emplace_back();
      block.down = &down;
      for (int i = 0; i < down.layers; ++i) {
        block.resnets.emplace_back(walk, down.in_channels, down.in_channels, causal, false);
      }
      if (down.downsample == LtxVaeDownBlock::Downsample::kStridedConv) {
        block.strided_conv.emplace(walk, down.in_channels, down.in_channels, down.stride, causal);
      } else if (down.downsample == LtxVaeDownBlock::Downsample::kSpaceToDepth) {
        block.downsampler.emplace(walk, down.in_channels, down.out_channels, down.stride, causal);
      }
      if (down.has_conv_out) {
        block.conv_out.emplace(walk, down.in_channels, down.out_channels, causal, false);
      }
    }
    for (int i = 0; i < config.encoder_mid_layers; ++i) {
      mid_block_.emplace_back(walk, LastChannels(config), LastChannels(config), causal, false);
    }
  }

  LtxWalkChain Begin(int64_t height, int64_t width) const {
    const LtxRunLength runs = walk_.runs();
    const int64_t p = walk_.config.patch_size;
    int64_t positions = (height / p) * (width / p);
    LtxWalkChain chain(walk_);
    chain.Add(
        [this, p, state = std::make_shared<LtxWalkConvolution::State>()](LtxWalkFrames video,
                                                                         bool last) {
          const LtxWalkFrames patches = {
              .t = video.t, .h = video.h / p, .w = video.w / p, .c = video.c * p * p};
          LtxWalkConvolution::Window window = conv_in_.Open(walk_, *state, patches, last);
          video = {};
          return conv_in_.Close(walk_, *state, std::move(window), last);
        },
        runs.Frames(positions * walk_.config.encoder_channels));
    bool gathers = false;
    const auto add = [&](LtxWalkChain::Layer layer, int64_t channels) {
      const int64_t most = runs.Frames(positions * channels);
      chain.Add(std::move(layer), most, gathers ? most : 1);
      gathers = false;
    };
    for (const Block& block : blocks_) {
      for (const LtxWalkResnet& resnet : block.resnets)
        add(WithLtxWalkState(walk_, resnet, LtxWalkResnet::State()), block.down->in_channels);
      if (block.strided_conv) {
        add(WithLtxWalkState(walk_, *block.strided_conv, LtxWalkConvolution::State()),
            block.down->in_channels);
      } else if (block.downsampler) {
        add(WithLtxWalkState(walk_, *block.downsampler, LtxWalkDownsampler::State()),
            block.down->in_channels);
      }
      if (block.strided_conv || block.downsampler) {
        positions /= block.down->stride.h * block.down->stride.w;
        gathers = block.down->stride.t > 1;
      }
      if (block.conv_out) {
        add(WithLtxWalkState(walk_, *block.conv_out, LtxWalkResnet::State()),
            std::max(block.down->in_channels, block.down->out_channels));
      }
    }
    const int64_t channels = LastChannels(walk_.config);
    for (const LtxWalkResnet& resnet : mid_block_)
      add(WithLtxWalkState(walk_, resnet, LtxWalkResnet::State()), channels);
    add(
        [this, state = std::make_shared<LtxWalkConvolution::State>()](LtxWalkFrames frames,
                                                                      bool last) {
          const LtxWalkFrames out = PushLast(walk_, conv_out_, *state, std::move(frames), last);
          return MakeLtxWalkFrames(walk_, out.t, out.h, out.w, 2 * (out.c - 1));
        },
        channels);
    return chain;
  }

 private:
  struct Block {
    const LtxVaeDownBlock* down = nullptr;
    std::vector<LtxWalkResnet> resnets;
    std::optional<LtxWalkConvolution> strided_conv;
    std::optional<LtxWalkDownsampler> downsampler;
    std::optional<LtxWalkResnet> conv_out;
  };

  static int64_t LastChannels(const LtxVaeConfig& config) {
    return config.down_blocks.empty() ? config.encoder_channels
                                      : config.down_blocks.back().out_channels;
  }

  LtxWalk& walk_;
  LtxWalkConvolution conv_in_;
  std::vector<Block> blocks_;
  std::vector<LtxWalkResnet> mid_block_;
  LtxWalkConvolution conv_out_;
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

// The tiles of a frame that advance through time together: one when it is not
// tiled.
class TiledDecode {
 public:
  TiledDecode(LtxWalk& walk, const Decoder& decoder, int64_t frames, const Size& latents,
              const LtxTileSizes& tiles)
      : walk_(walk), latents_(latents) {
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
        // The first is the largest.
        chains_.push_back(decoder.Begin(h, w, heights[0] * widths[0]));
        chains_.back().Push({.t = frames, .h = h, .w = w, .c = walk.config.latent_channels},
                            /*last=*/true);
      }
    }
  }

  bool done() const { return chains_[0].done(); }
  LtxWalkFrames Next() {
    std::vector<LtxWalkFrames> tiles;
    for (LtxWalkChain& chain : chains_) tiles.push_back(chain.Next());
    if (!joins_ || tiles[0].t == 0) return tiles[0];
    const int64_t ratio = walk_.config.spatial_compression_ratio;
    return MakeLtxWalkFrames(walk_, tiles[0].t, latents_.h * ratio, latents_.w * ratio, tiles[0].c);
  }

 private:
  LtxWalk& walk_;
  Size latents_;
  bool joins_ = false;
  std::vector<LtxWalkChain> chains_;
};

// diffusers' postprocessing, and float32 on the host.
void Deliver(LtxWalk& walk, const LtxWalkFrames& pixels) {
  const HeldBytes scaled = walk.Hold(pixels.elements());
  if (walk.options.element_bytes != kLtxWalkFloatBytes)
    walk.ledger.Touch(pixels.elements() * kLtxWalkFloatBytes);
}

void DecodeUntiledInTime(LtxWalk& walk, const Decoder& decoder, int64_t frames, const Size& latents,
                         const LtxTileSizes& tiles) {
  TiledDecode stream(walk, decoder, frames, latents, tiles);
  while (!stream.done()) {
    const LtxWalkFrames pixels = stream.Next();
    if (pixels.t > 0) Deliver(walk, pixels);
  }
}

void DecodeTiledInTime(LtxWalk& walk, const Decoder& decoder, int64_t frames, const Size& latents,
                       const LtxTileSizes& tiles) {
  const int64_t ratio = walk.config.temporal_compression_ratio;
  HeldBytes overlap;
  for (int64_t next = 0; next < frames; next += tiles.stride_frames / ratio) {
    LtxWalkFrames tile;
    {
      std::vector<LtxWalkFrames> decoded;
      TiledDecode stream(walk, decoder, std::min(tiles.min_frames / ratio + 1, frames - next),
                         latents, tiles);
      int64_t count = 0;
      while (!stream.done()) {
        LtxWalkFrames pixels = stream.Next();
        count += pixels.t;
        if (pixels.t > 0) decoded.push_back(std::move(pixels));
      }
      tile = MakeLtxWalkFrames(walk, count, decoded[0].h, decoded[0].w, decoded[0].c);
    }
    const int64_t kept = std::min(tiles.min_frames - tiles.stride_frames, tile.t);
    HeldBytes last = walk.Hold(kept * tile.h * tile.w * tile.c);
    overlap = std::move(last);
    LtxWalkFrames out = tile;
    out.t = std::min(tiles.stride_frames + (next == 0 ? 1 : 0), tile.t);
    Deliver(walk, out);
  }
}

// Pixels of a run as they come from the host's bytes, in the dtype of
// computation.
LtxWalkFrames Read(LtxWalk& walk, int64_t frames, const Size& pixels) {
  const int64_t elements = frames * pixels.h * pixels.w * walk.config.in_channels;
  HeldBytes floats(walk.ledger, walk.options.on_gpu ? 0 : elements * kLtxWalkFloatBytes);
  LtxWalkFrames run = {.t = frames, .h = pixels.h, .w = pixels.w, .c = walk.config.in_channels};
  if (walk.options.on_gpu || walk.options.element_bytes != kLtxWalkFloatBytes)
    return MakeLtxWalkFrames(walk, run.t, run.h, run.w, run.c);
  run.held = std::make_shared<const HeldBytes>(std::move(floats));
  return run;
}

LtxWalkFrames EncodeWhole(LtxWalk& walk, const Encoder& encoder, int64_t frames,
                          const Size& pixels) {
  LtxWalkChain chain = encoder.Begin(pixels.h, pixels.w);
  std::vector<LtxWalkFrames> moments;
  int64_t known = 0;
  for (int64_t next = 0; next < frames; next += chain.first_run()) {
    const int64_t count = std::min(chain.first_run(), frames - next);
    chain.Push(Read(walk, count, pixels), next + count == frames);
    for (LtxWalkFrames more = chain.Next(); more.t > 0; more = chain.Next()) {
      known += more.t;
      moments.push_back(std::move(more));
    }
  }
  const LtxWalkFrames joined =
      MakeLtxWalkFrames(walk, known, moments[0].h, moments[0].w, moments[0].c);
  return MakeLtxWalkFrames(walk, known, joined.h, joined.w, joined.c);
}

LtxWalkFrames EncodeUntiledInTime(LtxWalk& walk, const Encoder& encoder, int64_t frames,
                                  const Size& pixels, const LtxTileSizes& tiles) {
  if (!tiles.in_space || (pixels.w <= tiles.min_width && pixels.h <= tiles.min_height)) {
    return EncodeWhole(walk, encoder, frames, pixels);
  }
  std::vector<LtxWalkFrames> moments;
  for (const int64_t h : TileExtents(pixels.h, tiles.min_height, tiles.stride_height)) {
    for (const int64_t w : TileExtents(pixels.w, tiles.min_width, tiles.stride_width)) {
      moments.push_back(EncodeWhole(walk, encoder, frames, {.h = h, .w = w}));
    }
  }
  const int64_t ratio = walk.config.spatial_compression_ratio;
  return MakeLtxWalkFrames(walk, moments[0].t, pixels.h / ratio, pixels.w / ratio, moments[0].c);
}

void EncodeTiledInTime(LtxWalk& walk, const Encoder& encoder, int64_t frames, const Size& pixels,
                       const LtxTileSizes& tiles) {
  std::vector<LtxWalkFrames> joined;
  for (int64_t next = 0; next < frames; next += tiles.stride_frames) {
    joined.push_back(EncodeUntiledInTime(
        walk, encoder, std::min(tiles.min_frames + 1, frames - next), pixels, tiles));
  }
}

// Of a video `longer` times as long as the one walked through.
LtxVaePeak Result(const LtxWalk& walk, double longer) {
  return {.bytes = walk.ledger.peak(),
          .flops = walk.flops * longer,
          .passes = static_cast<int64_t>(std::ceil(walk.weights_used / walk.weights * longer))};
}

}  // namespace

LtxVaePeak LtxDecodePeak(const LtxVaeConfig& config, int64_t frames, int64_t height, int64_t width,
                         const LtxTileSizes& tiles, const LtxVaeWalkOptions& options) {
  LtxWalk walk = {.config = config, .options = options};
  const Decoder decoder(walk);
  const Size latents = {.h = height, .w = width};
  const int64_t walked = std::min(frames, kFramesWalked);
  if (tiles.in_time && frames > tiles.min_frames / config.temporal_compression_ratio) {
    DecodeTiledInTime(walk, decoder, walked, latents, tiles);
  } else {
    DecodeUntiledInTime(walk, decoder, walked, latents, tiles);
  }
  return Result(walk, static_cast<double>(frames) / static_cast<double>(walked));
}

LtxVaePeak LtxEncodePeak(const LtxVaeConfig& config, int64_t frames, int64_t height, int64_t width,
                         const LtxTileSizes& tiles, const LtxVaeWalkOptions& options) {
  LtxWalk walk = {.config = config, .options = options};
  const Encoder encoder(walk);
  const Size pixels = {.h = height, .w = width};
  if (tiles.in_time && frames > tiles.min_frames) {
    EncodeTiledInTime(walk, encoder, frames, pixels, tiles);
  } else {
    EncodeUntiledInTime(walk, encoder, frames, pixels, tiles);
  }
  return Result(walk, 1);
}

}  // namespace kino::engine
