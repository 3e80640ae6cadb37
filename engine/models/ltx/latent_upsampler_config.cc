#include "engine/models/ltx/latent_upsampler_config.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

Stride3d LtxLatentUpsamplerConfig::factors() const {
  const int64_t sides = spatial_upsample ? 2 : 1;
  return {.t = temporal_upsample ? 2 : 1, .h = sides, .w = sides};
}

VideoSize LtxLatentUpsamplerConfig::Upsampled(const VideoSize& size) const {
  const Stride3d by = factors();
  return {.height = size.height * static_cast<int>(by.h),
          .width = size.width * static_cast<int>(by.w),
          // The first frame stays one.
          .num_frames = (size.num_frames - 1) * static_cast<int>(by.t) + 1};
}

absl::StatusOr<LtxLatentUpsamplerConfig> LtxLatentUpsamplerConfig::FromJson(
    const nlohmann::json& json, const std::string& where) {
  ConfigReader reader(json, where);
  LtxLatentUpsamplerConfig config;
  config.in_channels = reader.Get("in_channels", config.in_channels);
  config.mid_channels = reader.Get("mid_channels", config.mid_channels);
  config.num_blocks_per_stage = reader.Get("num_blocks_per_stage", config.num_blocks_per_stage);
  config.dims = reader.Get("dims", config.dims);
  config.spatial_upsample = reader.Get("spatial_upsample", config.spatial_upsample);
  config.temporal_upsample = reader.Get("temporal_upsample", config.temporal_upsample);
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&where](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
  };
  if (config.in_channels < 1 || config.num_blocks_per_stage < 0)
    return refuse(absl::StrCat("in_channels ", config.in_channels, " and num_blocks_per_stage ",
                               config.num_blocks_per_stage, ", expected 1 and 0 or more"));
  if (config.mid_channels < 1 || config.mid_channels % kNormGroups != 0)
    return refuse(absl::StrCat("mid_channels ", config.mid_channels, ", expected a multiple of ",
                               kNormGroups));
  if (config.dims != 2 && config.dims != 3)
    return refuse(absl::StrCat("dims ", config.dims, ", expected 2 or 3"));
  if (!config.spatial_upsample && !config.temporal_upsample)
    return refuse("spatial_upsample and temporal_upsample are false, expected one true");
  if (config.dims == 2 && config.temporal_upsample)
    return refuse("temporal_upsample with dims 2, which sees single frames; expected dims 3");
  return config;
}

}  // namespace kino::engine
