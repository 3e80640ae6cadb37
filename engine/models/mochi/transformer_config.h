// Config of MochiTransformer3DModel (diffusers 0.42.1 models/transformers/transformer_mochi.py).
// Values only; no torch: describe reads it as well.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct MochiTransformerConfig {
  int patch_size = 2;
  int num_attention_heads = 24;
  int attention_head_dim = 128;
  int num_layers = 48;
  int pooled_projection_dim = 1536;  // width of the text's stream
  int in_channels = 12;
  int text_embed_dim = 4096;
  int time_embed_dim = 256;
  // Gates before values, shifts before scales, as Genmo's own files have them.
  bool original_layout = false;

  // `path` names the file in messages. UNIMPLEMENTED: an option no published Mochi uses.
  // INVALID_ARGUMENT: sizes of no such model.
  static absl::StatusOr<MochiTransformerConfig> FromJson(const nlohmann::json& json,
                                                         const std::string& path);
  int64_t width() const { return int64_t{num_attention_heads} * attention_head_dim; }
};

}  // namespace kino::engine
