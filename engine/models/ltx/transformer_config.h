// Config of LTXVideoTransformer3DModel (diffusers 0.42.1 models/transformers/transformer_ltx.py).
// Values only; no torch: the planner reads it as well.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct LtxTransformerConfig {
  int in_channels = 128;
  int out_channels = 128;
  int num_attention_heads = 32;
  int attention_head_dim = 64;
  int cross_attention_dim = 2048;
  int num_layers = 28;
  int caption_channels = 4096;
  double norm_eps = 1e-6;
  bool attention_bias = true;
  bool attention_out_bias = true;

  // `path` names the file in messages. UNIMPLEMENTED: an option no published LTX-Video uses.
  static absl::StatusOr<LtxTransformerConfig> FromJson(const nlohmann::json& json,
                                                       const std::string& path);
  int64_t width() const { return int64_t{num_attention_heads} * attention_head_dim; }
};

}  // namespace kino::engine
