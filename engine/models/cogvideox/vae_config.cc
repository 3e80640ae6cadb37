#include "engine/models/cogvideox/vae_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

// Larger numbers in a config are a mistake.
constexpr int kMaxChannels = 1 << 16, kMaxLayers = 256, kMaxSide = 1 << 16, kMaxBlocks = 8;

}  // namespace

VaeTileSizes CogVideoXVaeConfig::tile_sizes() const {
  return VaeTileSizes{.min_height = sample_height / 2,
                      .min_width = sample_width / 2,
                      .unit = 2 * spatial_ratio(),
                      .overlap_height = 1.0 / 6,
                      .overlap_width = 1.0 / 5}
      .With({});
}

absl::StatusOr<CogVideoXVaeConfig> CogVideoXVaeConfig::FromJson(const nlohmann::json& json,
                                                                const std::string& path) {
  ConfigReader reader(json, path);
  CogVideoXVaeConfig c;
  c.block_out_channels = reader.Get("block_out_channels", c.block_out_channels);
  c.latent_channels = reader.Within("latent_channels", c.latent_channels, 1, kMaxChannels);
  c.layers_per_block = reader.Within("layers_per_block", c.layers_per_block, 1, kMaxLayers);
  c.norm_num_groups = reader.Within("norm_num_groups", c.norm_num_groups, 1, kMaxChannels);
  const double ratio = reader.Within("temporal_compression_ratio", 4.0, 1.0, 1.0 * kMaxSide);
  c.sample_height = reader.Within("sample_height", c.sample_height, 1, kMaxSide);
  c.sample_width = reader.Within("sample_width", c.sample_width, 1, kMaxSide);
  c.scaling_factor = reader.Within("scaling_factor", c.scaling_factor, 1e-6, 1e6);
  c.invert_scale_latents = reader.Get("invert_scale_latents", c.invert_scale_latents);
  reader.Within("in_channels", 3, 3, 3);
  reader.Within("out_channels", 3, 3, 3);
  reader.Within("norm_eps", kNormEps, kNormEps, kNormEps);
  reader.Expect("act_fn", {"silu", "swish"});
  reader.ExpectMultiples("block_out_channels", c.block_out_channels, c.norm_num_groups,
                         kMaxChannels);
  for (const char* key : {"use_quant_conv", "use_post_quant_conv"})
    reader.Within(key, false, false, false);
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&path](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
  };
  const size_t blocks = c.block_out_channels.size();
  if (blocks < 2 || blocks > kMaxBlocks) {
    return refuse(
        absl::StrCat("'block_out_channels' has ", blocks, " entries, expected 2 to ", kMaxBlocks));
  }
  c.temporal_ratio = 1;
  while (c.temporal_ratio < ratio && c.temporal_ratio < c.spatial_ratio()) c.temporal_ratio *= 2;
  if (c.temporal_ratio != ratio ||
      std::min(c.sample_height, c.sample_width) < 4 * c.spatial_ratio()) {
    return refuse(absl::StrCat("temporal_compression_ratio is ", ratio, " and a sample ",
                               c.sample_height, "x", c.sample_width,
                               ", expected a power of 2 of at most ", c.spatial_ratio(),
                               " and at least ", 4 * c.spatial_ratio(), " a side"));
  }
  return c;
}

}  // namespace kino::engine
