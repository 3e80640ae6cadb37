#include "engine/text/t5_config.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<T5EncoderConfig> T5EncoderConfig::FromJson(const nlohmann::json& json,
                                                          const std::string& path) {
  ConfigReader reader(json, path);
  T5EncoderConfig config;
  config.vocab_size = reader.Get("vocab_size", config.vocab_size);
  config.d_model = reader.Get("d_model", config.d_model);
  config.d_kv = reader.Get("d_kv", config.d_kv);
  config.d_ff = reader.Get("d_ff", config.d_ff);
  config.num_layers = reader.Get("num_layers", config.num_layers);
  config.num_heads = reader.Get("num_heads", config.num_heads);
  config.relative_attention_num_buckets =
      reader.Get("relative_attention_num_buckets", config.relative_attention_num_buckets);
  config.relative_attention_max_distance =
      reader.Get("relative_attention_max_distance", config.relative_attention_max_distance);
  config.layer_norm_epsilon = reader.Get("layer_norm_epsilon", config.layer_norm_epsilon);
  const std::string activation = reader.Get("feed_forward_proj", std::string("relu"));
  KINO_RETURN_IF_ERROR(reader.status());
  if (activation != "gated-gelu") {
    return absl::UnimplementedError(absl::StrCat(path, ": feed_forward_proj '", activation,
                                                 "', expected 'gated-gelu' (T5 v1.1)"));
  }
  if (config.vocab_size < 1 || config.d_model < 1 || config.d_kv < 1 || config.d_ff < 1 ||
      config.num_layers < 1 || config.num_heads < 1 || config.relative_attention_num_buckets < 4 ||
      config.relative_attention_max_distance < 2) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a size is not positive"));
  }
  return config;
}

}  // namespace kino::engine
