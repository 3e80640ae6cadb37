#include "engine/models/allegro/vae_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

// Larger numbers in a config are a mistake.
constexpr int kMaxChannels = 1 << 16, kMaxLayers = 256, kMaxSampleSize = 1 << 16;
// Of AutoencoderKLAllegro. With more blocks the overlaps are not whole latents.
constexpr size_t kMaxBlocks = 4;
constexpr int kTileFrames = 24, kOverlapFrames = 8, kOverlapHeight = 120, kOverlapWidth = 80;

}  // namespace

VaeTileSizes AllegroVaeConfig::tiles() const {
  return {.min_height = sample_size,
          .min_width = sample_size,
          .stride_height = sample_size - kOverlapHeight,
          .stride_width = sample_size - kOverlapWidth,
          .min_num_frames = kTileFrames,
          .stride_num_frames = kTileFrames - kOverlapFrames,
          .unit = spatial_ratio(),
          .frames_unit = temporal_compression_ratio,
          .adds_up = true};
}

absl::StatusOr<AllegroVaeConfig> AllegroVaeConfig::FromJson(const nlohmann::json& json,
                                                            const std::string& path) {
  ConfigReader reader(json, path);
  AllegroVaeConfig config;
  config.out_channels = reader.Get("out_channels", config.out_channels);
  config.latent_channels = reader.Get("latent_channels", config.latent_channels);
  config.block_out_channels = reader.Get("block_out_channels", config.block_out_channels);
  config.temporal_upsample_blocks =
      reader.Get("temporal_upsample_blocks", config.temporal_upsample_blocks);
  config.layers_per_block = reader.Get("layers_per_block", config.layers_per_block);
  config.norm_num_groups =
      reader.Within("norm_num_groups", config.norm_num_groups, 1, kMaxChannels);
  config.temporal_compression_ratio =
      reader.Get("temporal_compression_ratio", config.temporal_compression_ratio);
  config.sample_size = reader.Get("sample_size", config.sample_size);
  config.scaling_factor = reader.Get("scaling_factor", config.scaling_factor);
  reader.Expect("act_fn", {"silu", "swish"});
  reader.ExpectMultiples("block_out_channels", config.block_out_channels, config.norm_num_groups,
                         kMaxChannels);
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&path](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
  };
  const size_t blocks = config.block_out_channels.size();
  if (blocks < 1 || blocks > kMaxBlocks || config.temporal_upsample_blocks.size() != blocks) {
    return refuse(absl::StrCat(
        "'block_out_channels' has ", blocks, " entries, 'temporal_upsample_blocks' ",
        config.temporal_upsample_blocks.size(), "; expected as many, 1 to ", kMaxBlocks));
  }
  if (config.out_channels != 3 || config.latent_channels < 1 ||
      config.latent_channels > kMaxChannels || config.layers_per_block < 0 ||
      config.layers_per_block > kMaxLayers || !(config.scaling_factor > 0)) {
    return refuse("a size is not positive or too large, or out_channels is not 3");
  }
  const auto doublings = std::count(config.temporal_upsample_blocks.begin(),
                                    config.temporal_upsample_blocks.end(), true);
  if (config.temporal_compression_ratio != 1 << doublings || kOverlapFrames % (1 << doublings)) {
    return refuse(absl::StrCat("temporal_compression_ratio ", config.temporal_compression_ratio,
                               ", expected 2 to the number of 'temporal_upsample_blocks', up to ",
                               kOverlapFrames));
  }
  if (config.sample_size <= kOverlapHeight || config.sample_size > kMaxSampleSize ||
      config.sample_size % config.spatial_ratio() != 0) {
    return refuse(absl::StrCat("sample_size ", config.sample_size, ", expected a multiple of ",
                               config.spatial_ratio(), " above ", kOverlapHeight));
  }
  return config;
}

}  // namespace kino::engine
