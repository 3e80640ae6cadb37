// Config of AutoencoderKLLTXVideo, resolved: diffusers gives some lists in encoder order and
// reverses them inside the decoder; here each block has its own numbers. Values only. Source:
// diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py. Generations 0.9.0, 0.9.1, 0.9.5,
// 0.9.7, 0.9.8.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/stride3d.h"
#include "engine/describe/vae_tile_sizes.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// Of AutoencoderKLLTXVideo.
inline constexpr VaeTileSizes kLtxTiles = {.min_height = 512,
                                           .min_width = 512,
                                           .stride_height = 448,
                                           .stride_width = 448,
                                           .min_num_frames = 16,
                                           .stride_num_frames = 8,
                                           .unit = 32,
                                           .frames_unit = 8};

// OK when the tiles and strides that the request makes of kLtxTiles are whole latents, of so many
// pixels and frames, as those of an encode, and those that are tiled once more, have to be.
// INVALID_ARGUMENT otherwise.
absl::Status CheckWholeTiles(const VaeTiling& tiling, int64_t spatial_ratio,
                             int64_t temporal_ratio);

struct LtxVaeDownBlock {
  enum class Downsample {
    kNone,
    kStridedConv,   // 0.9.0: a convolution with a stride
    kSpaceToDepth,  // 0.9.5: pixels to channels, plus the mean over groups of them
  };
  int64_t in_channels = 0;
  int64_t out_channels = 0;
  int layers = 0;
  Downsample downsample = Downsample::kNone;
  Stride3d stride;
  bool has_conv_out = false;  // 0.9.0: a resnet behind the downsampler changes the channels
};

struct LtxVaeUpBlock {
  int64_t in_channels = 0;
  int64_t out_channels = 0;
  int layers = 0;
  bool upsample = false;  // by two in time, height and width
  bool upsample_residual = false;
  int64_t upscale_factor = 1;  // the upsampler takes out_channels times this
  bool inject_noise = false;
};

struct LtxVaeConfig {
  int64_t in_channels = 3;
  int64_t out_channels = 3;
  int64_t latent_channels = 128;
  int64_t patch_size = 4;
  double resnet_norm_eps = 1e-6;
  double scaling_factor = 1.0;
  int64_t spatial_compression_ratio = 32;
  int64_t temporal_compression_ratio = 8;

  bool encoder_causal = true;
  int64_t encoder_channels = 128;  // behind conv_in
  std::vector<LtxVaeDownBlock> down_blocks;
  int encoder_mid_layers = 4;

  bool decoder_causal = false;
  bool timestep_conditioning = false;
  int64_t decoder_channels = 512;  // behind conv_in
  int decoder_mid_layers = 4;
  bool decoder_mid_inject_noise = false;
  std::vector<LtxVaeUpBlock> up_blocks;

  // Some resnet of the decoder adds noise drawn while decoding (0.9.1).
  bool InjectsNoise() const;

  // `where` names the file in messages. Absent keys take diffusers' defaults, unknown keys are
  // ignored. INVALID_ARGUMENT names a key whose value is of the wrong type or unknown, or that fits
  // no model diffusers can run.
  static absl::StatusOr<LtxVaeConfig> FromJson(const nlohmann::json& json,
                                               const std::string& where);
};

}  // namespace kino::engine
