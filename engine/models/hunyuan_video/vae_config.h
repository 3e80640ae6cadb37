// Config of AutoencoderKLHunyuanVideo (diffusers 0.42.1
// models/autoencoders/autoencoder_kl_hunyuan_video.py). Values only; no torch: describe reads it
// too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/describe/vae_tile_sizes.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct HunyuanVideoVaeConfig {
  static constexpr double kNormEps = 1e-6;  // of every norm
  static constexpr int kTemporalRatio = 4;  // the one that the class decodes with
  std::vector<int> block_out_channels = {128, 256, 512, 512};
  int latent_channels = 16;
  int layers_per_block = 2;
  int norm_num_groups = 32;
  double scaling_factor = 0.476986;
  int spatial_ratio = 8;  // spatial_compression_ratio
  bool mid_block_add_attention = true;
  bool has_encoder = true;  // Kino's own key: a model that never encodes loads the decoder alone

  // `path` names the file in messages. Absent keys take diffusers' defaults. INVALID_ARGUMENT:
  // sizes of no such model. UNIMPLEMENTED: an option that no published HunyuanVideo has.
  static absl::StatusOr<HunyuanVideoVaeConfig> FromJson(const nlohmann::json& json,
                                                        const std::string& path);
  // An incomplete latent frame at the end of an encoded video counts.
  int latent_frames(int frames) const { return (frames - 1) / kTemporalRatio + 1; }
  int frames(int latent_frames) const { return (latent_frames - 1) * kTemporalRatio + 1; }
  // Block i, from the side of the latents in the decoder and of the pixels in the encoder.
  bool resamples_space(size_t i) const { return spatial_ratio >> (i + 1) > 0; }
  bool resamples_time(size_t i) const {
    return i + 3 >= block_out_channels.size() && i + 1 < block_out_channels.size();
  }
  // The class's sizes. Those in time hold without a request for tiles, too.
  VaeTileSizes tile_sizes() const;
  // OK when a video (an image: of one frame) of this size can be encoded in such tiles.
  // INVALID_ARGUMENT: they give fewer latents than it has; diffusers fails at it later. Any tiles
  // can be decoded.
  absl::Status CheckEncodeTiling(int frames, int height, int width, const VaeTiling& tiling) const;
};

}  // namespace kino::engine
