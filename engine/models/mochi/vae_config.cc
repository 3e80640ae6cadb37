#include "engine/models/mochi/vae_config.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

// Larger numbers in a config are a mistake.
constexpr int kMaxChannels = 1 << 16, kMaxLayers = 256, kMaxExpansion = 8;
constexpr int kGroups = 32;

const std::vector<double>& PublishedMean() {
  static const std::vector<double> mean = {
      -0.06730895953510081, -0.038011381506090416, -0.07477820912866141,  -0.05565264470995561,
      0.012767231469026969, -0.04703542746246419,  0.043896967884726704,  -0.09346305707025976,
      -0.09918314763016893, -0.008729793427399178, -0.011931556316503654, -0.0321993391887285};
  return mean;
}
const std::vector<double>& PublishedStd() {
  static const std::vector<double> deviation = {
      0.9263795028493863, 0.9248894543193766, 0.9393059390890617, 0.959253732819592,
      0.8244560132752793, 0.917259975397747,  0.9294154431013696, 1.3720942357788521,
      0.881393668867029,  0.9168315692124348, 0.9185249279345552, 0.9274757570805041};
  return deviation;
}

bool AllWithin(const std::vector<int>& list, int low, int high) {
  return std::all_of(list.begin(), list.end(),
                     [&](int value) { return value >= low && value <= high; });
}

int Product(const std::vector<int>& list) {
  return std::accumulate(list.begin(), list.end(), 1, std::multiplies<>());
}

}  // namespace

int MochiVaeConfig::spatial_ratio() const { return Product(spatial_expansions); }
int MochiVaeConfig::temporal_ratio() const { return Product(temporal_expansions); }

absl::StatusOr<MochiVaeConfig> MochiVaeConfig::FromJson(const nlohmann::json& json,
                                                        const std::string& path) {
  ConfigReader reader(json, path);
  MochiVaeConfig config;
  config.out_channels = reader.Get("out_channels", config.out_channels);
  config.latent_channels = reader.Get("latent_channels", config.latent_channels);
  config.decoder_block_out_channels =
      reader.Get("decoder_block_out_channels", config.decoder_block_out_channels);
  config.layers_per_block = reader.Get("layers_per_block", config.layers_per_block);
  config.temporal_expansions = reader.Get("temporal_expansions", config.temporal_expansions);
  config.spatial_expansions = reader.Get("spatial_expansions", config.spatial_expansions);
  config.scaling_factor = reader.Get("scaling_factor", config.scaling_factor);
  // null says that there are none, an absent key the class's.
  config.latents_mean = reader.Get(
      "latents_mean", json.contains("latents_mean") ? std::vector<double>() : PublishedMean());
  config.latents_std = reader.Get(
      "latents_std", json.contains("latents_std") ? std::vector<double>() : PublishedStd());
  reader.Expect("act_fn", {"silu", "swish"});
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&path](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
  };
  const size_t blocks = config.decoder_block_out_channels.size();
  if (blocks < 2 || config.layers_per_block.size() != blocks + 1 ||
      config.temporal_expansions.size() != blocks - 1 ||
      config.spatial_expansions.size() != blocks - 1) {
    return refuse(absl::StrCat("'decoder_block_out_channels' has ", blocks,
                               " entries, 'layers_per_block' ", config.layers_per_block.size(),
                               ", 'temporal_expansions' ", config.temporal_expansions.size(),
                               ", 'spatial_expansions' ", config.spatial_expansions.size(),
                               "; expected n, n + 1, n - 1 and n - 1"));
  }
  if (config.out_channels != 3 || config.latent_channels < 1 ||
      config.latent_channels > kMaxChannels ||
      !AllWithin(config.decoder_block_out_channels, 1, kMaxChannels) ||
      !AllWithin(config.layers_per_block, 0, kMaxLayers) ||
      !AllWithin(config.temporal_expansions, 1, kMaxExpansion) ||
      !AllWithin(config.spatial_expansions, 1, kMaxExpansion)) {
    return refuse("a size is not positive or too large, or out_channels is not 3");
  }
  for (const int channels : config.decoder_block_out_channels) {
    if (channels % kGroups != 0) {
      return refuse(absl::StrCat("'decoder_block_out_channels' has ", channels,
                                 ", expected a multiple of ", kGroups));
    }
  }
  if (config.latents_mean.empty() || config.latents_std.empty()) {
    config.latents_mean.clear();
    config.latents_std.clear();
  } else if (config.latents_mean.size() != static_cast<size_t>(config.latent_channels) ||
             config.latents_std.size() != static_cast<size_t>(config.latent_channels)) {
    return refuse(absl::StrCat("'latents_mean' has ", config.latents_mean.size(),
                               " entries, 'latents_std' ", config.latents_std.size(),
                               ", expected latent_channels, ", config.latent_channels));
  }
  return config;
}

}  // namespace kino::engine
