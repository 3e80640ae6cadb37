#include "engine/models/hunyuan_video/vae_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

// Larger numbers in a config are a mistake.
constexpr int kMaxChannels = 1 << 16, kMaxLayers = 256, kMaxBlocks = 8;
// Two of its blocks double the frames, and the last never does.
constexpr int kMinBlocks = 3;

}  // namespace

VaeTileSizes HunyuanVideoVaeConfig::tile_sizes() const {
  return {.min_height = 256,
          .min_width = 256,
          .stride_height = 192,
          .stride_width = 192,
          .min_num_frames = 16,
          .stride_num_frames = 12,
          .framewise = true,
          .unit = spatial_ratio,
          .frames_unit = kTemporalRatio};
}

absl::Status HunyuanVideoVaeConfig::CheckEncodeTiling(int frames, int height, int width,
                                                      const VaeTiling& tiling) const {
  const VaeTileSizes sizes = tile_sizes();
  if (const std::optional<TimeTiles> in_time = sizes.InTime(tiling))
    KINO_RETURN_IF_ERROR(CheckEncodeTimeTiles(frames, *in_time, kTemporalRatio));
  const TileGrid pixels = sizes.With(tiling).grid();
  return CheckEncodeTiles(height, width, pixels, pixels.InLatents(spatial_ratio), spatial_ratio,
                          PartLatent::kOneMore);
}

absl::StatusOr<HunyuanVideoVaeConfig> HunyuanVideoVaeConfig::FromJson(const nlohmann::json& json,
                                                                      const std::string& path) {
  ConfigReader reader(json, path);
  HunyuanVideoVaeConfig c;
  c.block_out_channels = reader.Get("block_out_channels", c.block_out_channels);
  c.latent_channels = reader.Within("latent_channels", c.latent_channels, 1, kMaxChannels);
  c.layers_per_block = reader.Within("layers_per_block", c.layers_per_block, 1, kMaxLayers);
  c.norm_num_groups = reader.Within("norm_num_groups", c.norm_num_groups, 1, kMaxChannels);
  c.scaling_factor = reader.Within("scaling_factor", c.scaling_factor, 1e-6, 1e6);
  c.spatial_ratio = reader.Within("spatial_compression_ratio", c.spatial_ratio, 1, 1 << kMaxBlocks);
  c.mid_block_add_attention = reader.Get("mid_block_add_attention", c.mid_block_add_attention);
  c.has_encoder = reader.Get("has_encoder", c.has_encoder);
  reader.Within("temporal_compression_ratio", kTemporalRatio, kTemporalRatio, kTemporalRatio);
  for (const char* key : {"in_channels", "out_channels"}) reader.Within(key, 3, 3, 3);
  reader.Expect("act_fn", {"silu", "swish"});
  reader.ExpectMultiples("block_out_channels", c.block_out_channels, c.norm_num_groups,
                         kMaxChannels);
  const auto are_all = [&](const char* key, const char* type) {
    using Types = std::vector<std::string>;
    return reader.Get(key, Types(4, type)) == Types(c.block_out_channels.size(), type);
  };
  const bool has_types = are_all("down_block_types", "HunyuanVideoDownBlock3D") &&
                         are_all("up_block_types", "HunyuanVideoUpBlock3D");
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&path](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
  };
  const size_t blocks = c.block_out_channels.size();
  if (blocks < kMinBlocks || blocks > kMaxBlocks) {
    return refuse(absl::StrCat("'block_out_channels' has ", blocks, " entries, expected ",
                               kMinBlocks, " to ", kMaxBlocks));
  }
  if (!has_types) {
    return refuse(absl::StrCat("'down_block_types' and 'up_block_types', expected ", blocks,
                               " times HunyuanVideoDownBlock3D and HunyuanVideoUpBlock3D, as many "
                               "as 'block_out_channels'"));
  }
  // With less, a block would double frames and not sides.
  const int usual = 1 << (blocks - 1);
  if (c.spatial_ratio != usual && c.spatial_ratio != 2 * usual) {
    return refuse(absl::StrCat("'spatial_compression_ratio' is ", c.spatial_ratio, ", expected ",
                               usual, " or ", 2 * usual, " with ", blocks, " blocks"));
  }
  return c;
}

}  // namespace kino::engine
