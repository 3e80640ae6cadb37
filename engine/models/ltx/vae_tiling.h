// diffusers' tiling of AutoencoderKLLTXVideo: overlapping tiles in space (enable_tiling) and in
// time (use_framewise_decoding), decoded or encoded by themselves and blended along straight lines.
// It changes the picture slightly; the exact decode by runs of frames needs it only where one frame
// is too large for the device.
//
// Tiles in space advance through time together and are blended frame by frame, so that memory does
// not grow with the video; each keeps what its layers remember, so together they hold a little more
// than the untiled decode does. An encode goes through the video once for each tile. Source:
// diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py. One thread.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "engine/core/run_context.h"
#include "engine/models/common/vae_tiles.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/vae_decoder.h"
#include "engine/models/ltx/vae_encoder.h"
#include "engine/nn/run_length.h"

namespace kino::engine {

// diffusers' names; pixels and pixel frames.
struct LtxVaeTiling {
  bool use_tiling = false;
  bool use_framewise_decoding = false;  // tiles in time, when encoding as well
  int64_t tile_sample_min_height = kLtxTiles.min_height;
  int64_t tile_sample_min_width = kLtxTiles.min_width;
  int64_t tile_sample_min_num_frames = kLtxTiles.min_num_frames;
  int64_t tile_sample_stride_height = kLtxTiles.stride_height;
  int64_t tile_sample_stride_width = kLtxTiles.stride_width;
  int64_t tile_sample_stride_num_frames = kLtxTiles.stride_num_frames;

  // What a request says.
  static LtxVaeTiling Of(const std::optional<VaeTiling>& request);
  // The tiles in space, if there are any.
  std::optional<TileGrid> grid() const;
  // INVALID_ARGUMENT when a tile or its stride is less than one latent, or tiles would leave gaps.
  absl::Status Check(const LtxVaeConfig& config) const;
};

struct LtxVaeDecodeOptions {
  at::Tensor timestep;                           // [1]; for a decoder conditioned on it
  std::optional<at::Generator> noise_generator;  // CPU; for a decoder that injects noise
  LtxVaeTiling tiling;
  std::optional<RunLength> runs = {};  // RunLengthOn the device, if not given
};

// The video to encode, read a run of frames at a time; any part may be asked for again.
struct LtxVideoSource {
  int64_t frames = 0;
  int64_t height = 0;
  int64_t width = 0;
  // [count, height, width, 3] from frame `first` on: bytes, or floating point in -1..1.
  std::function<at::Tensor(int64_t first, int64_t count)> read;
};

// latents: [1, C, F, h, w], denormalised, in the weights' dtype.
std::unique_ptr<DecodeStream> LtxVaeDecode(const LtxVaeDecoder& decoder, const LtxVaeConfig& config,
                                           at::Tensor latents, const LtxVaeDecodeOptions& options);

// -> moments [1, 2 * C, F, h, w] with `options`. Height and width are multiples of the compression
// ratio. Throws as DecodeStream::Next does, and StatusError INVALID_ARGUMENT when tiles are
// not multiples of the compression ratios.
at::Tensor LtxVaeEncode(const LtxVaeEncoder& encoder, const LtxVaeConfig& config,
                        const LtxVideoSource& video, const LtxVaeTiling& tiling,
                        const RunLength& runs, const at::TensorOptions& options,
                        const RunContext& context);

}  // namespace kino::engine
