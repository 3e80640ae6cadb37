// Config of LTXLatentUpsamplerModel. Values only. Source: diffusers 0.42.1
// pipelines/ltx/modeling_latent_upsampler.py.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/core/stride3d.h"
#include "engine/describe/request.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct LtxLatentUpsamplerConfig {
  static constexpr int kNormGroups = 32;

  int in_channels = 128;
  int mid_channels = 512;
  int num_blocks_per_stage = 4;
  int dims = 3;  // of convolutions and norms: 2, of each frame by itself, or 3
  bool spatial_upsample = true;
  bool temporal_upsample = false;

  // How many latents each becomes, before the first frame is dropped of a temporal upsampling.
  Stride3d factors() const;
  // The video that one of this size becomes.
  VideoSize Upsampled(const VideoSize& size) const;

  // Absent keys take diffusers' defaults, unknown keys are ignored. INVALID_ARGUMENT, naming the
  // file as `where`: a key of the wrong type, or a model that diffusers cannot run.
  static absl::StatusOr<LtxLatentUpsamplerConfig> FromJson(const nlohmann::json& json,
                                                           const std::string& where);
};

}  // namespace kino::engine
