// Config of AutoencoderKLAllegro's decoder (diffusers 0.42.1
// models/autoencoders/autoencoder_kl_allegro.py). Values only; no torch: describe reads it as well.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/vae_tile_sizes.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct AllegroVaeConfig {
  int out_channels = 3;
  int latent_channels = 4;
  std::vector<int> block_out_channels = {128, 256, 512, 512};
  std::vector<bool> temporal_upsample_blocks = {false, true, true, false};
  int layers_per_block = 2;
  int norm_num_groups = 32;
  int temporal_compression_ratio = 4;
  int sample_size = 320;
  double scaling_factor = 0.13;

  // `path` names the file in messages. Absent keys take diffusers' defaults. INVALID_ARGUMENT:
  // lists of lengths or sizes of no such model. UNIMPLEMENTED: an option the published Allegro does
  // not use.
  static absl::StatusOr<AllegroVaeConfig> FromJson(const nlohmann::json& json,
                                                   const std::string& path);
  int spatial_ratio() const { return 1 << (block_out_channels.size() - 1); }
  // The tiles that it always decodes in.
  VaeTileSizes tiles() const;
};

}  // namespace kino::engine
