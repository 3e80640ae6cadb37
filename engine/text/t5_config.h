// Config of a T5 v1.1 encoder (transformers 5.23 models/t5/configuration_t5.py). Values only; no
// torch: the planner reads it as well.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct T5EncoderConfig {
  int vocab_size = 32128;
  int d_model = 512;
  int d_kv = 64;
  int d_ff = 2048;
  int num_layers = 6;
  int num_heads = 8;
  int relative_attention_num_buckets = 32;
  int relative_attention_max_distance = 128;
  double layer_norm_epsilon = 1e-6;

  // `path` names the file in messages. UNIMPLEMENTED: a T5 that is not gated-gelu.
  static absl::StatusOr<T5EncoderConfig> FromJson(const nlohmann::json& json,
                                                  const std::string& path);
};

}  // namespace kino::engine
