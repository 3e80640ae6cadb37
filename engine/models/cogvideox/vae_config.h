// Config of AutoencoderKLCogVideoX (diffusers 0.42.1
// models/autoencoders/autoencoder_kl_cogvideox.py). Values only; no torch: describe reads it too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/vae_tile_sizes.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct CogVideoXVaeConfig {
  static constexpr double kNormEps = 1e-6;  // of every norm
  std::vector<int> block_out_channels = {128, 256, 256, 512};
  int latent_channels = 16;
  int layers_per_block = 3;
  int norm_num_groups = 32;
  int temporal_ratio = 4;  // temporal_compression_ratio
  int sample_height = 480, sample_width = 720;
  double scaling_factor = 1.15258426;
  bool invert_scale_latents = false;  // an image's latents are divided where others are multiplied

  // `path` names the file in messages. Absent keys take diffusers' defaults. UNIMPLEMENTED,
  // INVALID_ARGUMENT: options and sizes of no published CogVideoX.
  static absl::StatusOr<CogVideoXVaeConfig> FromJson(const nlohmann::json& json,
                                                     const std::string& path);
  int spatial_ratio() const { return 1 << (block_out_channels.size() - 1); }
  int latent_frames(int frames) const { return (frames - 1) / temporal_ratio + 1; }
  // What so many latent frames are decoded to: of an even number all stand for several.
  int frames(int latent_frames) const {
    const int alone = latent_frames % 2;
    return alone + (latent_frames - alone) * temporal_ratio;
  }
  // Half the sample's size, the next tile a sixth (a fifth in width) before its end.
  VaeTileSizes tile_sizes() const;
};

}  // namespace kino::engine
