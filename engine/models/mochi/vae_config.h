// Config of AutoencoderKLMochi's decoder (diffusers 0.42.1
// models/autoencoders/autoencoder_kl_mochi.py). Values only; no torch: describe reads it as well.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/vae_tile_sizes.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// Of AutoencoderKLMochi.
inline constexpr VaeTileSizes kMochiTiles = {
    .min_height = 256, .min_width = 256, .stride_height = 192, .stride_width = 192, .unit = 8};

struct MochiVaeConfig {
  int out_channels = 3;
  int latent_channels = 12;
  std::vector<int> decoder_block_out_channels = {128, 256, 512, 768};
  std::vector<int> layers_per_block = {3, 3, 4, 6, 3};
  std::vector<int> temporal_expansions = {1, 2, 3};
  std::vector<int> spatial_expansions = {2, 2, 2};
  double scaling_factor = 1.0;
  // Of each latent channel; both empty: none.
  std::vector<double> latents_mean, latents_std;

  // `path` names the file in messages. Absent keys take diffusers' defaults. INVALID_ARGUMENT:
  // lists of lengths or sizes of no such model. UNIMPLEMENTED: an option no published Mochi uses.
  static absl::StatusOr<MochiVaeConfig> FromJson(const nlohmann::json& json,
                                                 const std::string& path);
  int spatial_ratio() const;
  int temporal_ratio() const;
};

}  // namespace kino::engine
