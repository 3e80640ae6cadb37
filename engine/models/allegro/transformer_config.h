// Config of AllegroTransformer3DModel (diffusers 0.42.1
// models/transformers/transformer_allegro.py). Values only; no torch: describe reads it as well.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct AllegroTransformerConfig {
  int patch_size = 2;
  int num_attention_heads = 24;
  int attention_head_dim = 96;
  int in_channels = 4;
  int num_layers = 32;
  int cross_attention_dim = 2304;
  bool attention_bias = true;
  // Of the latents, where a request does not say.
  int sample_height = 90, sample_width = 160, sample_frames = 22;
  double norm_eps = 1e-6;
  int caption_channels = 4096;
  // Positions are divided by these.
  double interpolation_scale_h = 2.0, interpolation_scale_w = 2.0, interpolation_scale_t = 2.2;

  // `path` names the file in messages. UNIMPLEMENTED: an option the published Allegro does not use.
  // INVALID_ARGUMENT: sizes of no such model.
  static absl::StatusOr<AllegroTransformerConfig> FromJson(const nlohmann::json& json,
                                                           const std::string& path);
  int64_t width() const { return int64_t{num_attention_heads} * attention_head_dim; }
};

}  // namespace kino::engine
