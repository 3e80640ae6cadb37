#include "engine/text/llama_config.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr int kMostLayers = 1000;

// The object of this key, or nullptr.
const nlohmann::json* ObjectOf(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_object() && !found->empty() ? &*found : nullptr;
}

// text: a LlamaConfig's JSON; reader: of it.
absl::StatusOr<LlamaRope> ReadRope(const nlohmann::json& text, ConfigReader& reader,
                                   const std::string& path) {
  static const nlohmann::json kNone = nlohmann::json::object();
  const nlohmann::json* given = ObjectOf(text, "rope_scaling");
  if (given == nullptr) given = ObjectOf(text, "rope_parameters");
  ConfigReader inner(given == nullptr ? kNone : *given, path);
  LlamaRope rope;
  rope.theta = inner.Get("rope_theta", reader.Get("rope_theta", rope.theta));
  const std::string type = inner.Get("rope_type", inner.Get("type", std::string("default")));
  const double part = inner.Get("partial_rotary_factor", reader.Get("partial_rotary_factor", 1.0));
  rope.factor = inner.Get("factor", 0.0);
  rope.low_freq_factor = inner.Get("low_freq_factor", 0.0);
  rope.high_freq_factor = inner.Get("high_freq_factor", 0.0);
  rope.original_max_position_embeddings =
      inner.Get("original_max_position_embeddings", reader.Get("max_position_embeddings", 2048));
  KINO_RETURN_IF_ERROR(inner.status());
  if (type == "default") {
    rope.scaling = LlamaRope::Scaling::kDefault;
  } else if (type == "linear") {
    rope.scaling = LlamaRope::Scaling::kLinear;
  } else if (type == "llama3") {
    rope.scaling = LlamaRope::Scaling::kLlama3;
  } else {
    return absl::UnimplementedError(
        absl::StrCat(path, ": rope_type '", type, "', expected 'default', 'linear' or 'llama3'"));
  }
  if (part != 1.0) {
    return absl::UnimplementedError(
        absl::StrCat(path, ": partial_rotary_factor ", part, ", expected 1"));
  }
  const bool scales = rope.scaling != LlamaRope::Scaling::kDefault;
  const bool blends = rope.scaling == LlamaRope::Scaling::kLlama3;
  if (!(rope.theta > 0) || (scales && !(rope.factor > 0)) ||
      (blends && !(rope.low_freq_factor > 0 && rope.high_freq_factor > rope.low_freq_factor &&
                   rope.original_max_position_embeddings > 0))) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": rotary positions '", type, "' with rope_theta ", rope.theta, ", factor ",
        rope.factor, ", low_freq_factor ", rope.low_freq_factor, ", high_freq_factor ",
        rope.high_freq_factor, "; expected positive ones, the low factor below the high one"));
  }
  return rope;
}

absl::Status CheckSizes(const LlamaEncoderConfig& config, const std::string& path) {
  if (config.vocab_size < 1 || config.hidden_size < 1 || config.intermediate_size < 1 ||
      config.num_attention_heads < 1 || config.num_key_value_heads < 1 || config.head_dim < 1) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a size is not positive"));
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": num_attention_heads is ", config.num_attention_heads,
                     ", expected a multiple of num_key_value_heads ", config.num_key_value_heads));
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": heads of ", config.head_dim, " numbers, expected an even number"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LlamaEncoderConfig> LlamaEncoderConfig::FromJson(const nlohmann::json& json,
                                                                const std::string& path) {
  ConfigReader outer(json, path);
  const nlohmann::json* nested = ObjectOf(json, "text_config");
  const nlohmann::json& text = nested == nullptr ? json : *nested;
  ConfigReader reader(text, nested == nullptr ? path : absl::StrCat(path, " (text_config)"));
  const std::string outer_type = outer.Get("model_type", std::string(nested ? "llava" : "llama"));
  const std::string type = reader.Get("model_type", std::string("llama"));
  LlamaEncoderConfig config;
  config.vocab_size = reader.Get("vocab_size", config.vocab_size);
  config.hidden_size = reader.Get("hidden_size", config.hidden_size);
  config.intermediate_size = reader.Get("intermediate_size", config.intermediate_size);
  config.num_hidden_layers =
      reader.Within("num_hidden_layers", config.num_hidden_layers, 1, kMostLayers);
  config.num_attention_heads = reader.Get("num_attention_heads", config.num_attention_heads);
  config.num_key_value_heads = reader.Get("num_key_value_heads", config.num_attention_heads);
  config.head_dim = reader.Get("head_dim", config.num_attention_heads < 1
                                               ? 0
                                               : config.hidden_size / config.num_attention_heads);
  config.rms_norm_eps = reader.Get("rms_norm_eps", config.rms_norm_eps);
  config.attention_bias = reader.Get("attention_bias", false);
  config.mlp_bias = reader.Get("mlp_bias", false);
  config.permuted_rotary = reader.Get("permuted_rotary", false);
  KINO_ASSIGN_OR_RETURN(config.rope, ReadRope(text, reader, path));
  KINO_RETURN_IF_ERROR(reader.status());
  if (nested != nullptr) {
    constexpr int kLlavaDefault = 32000;
    config.image_token_index =
        outer.Get("image_token_index", outer.Get("image_token_id", kLlavaDefault));
  }
  config.num_hidden_layers_to_skip = outer.Within(
      "num_hidden_layers_to_skip", config.num_hidden_layers_to_skip, 1, config.num_hidden_layers);
  KINO_RETURN_IF_ERROR(outer.status());
  if (type != "llama" || outer_type != (nested == nullptr ? "llama" : "llava")) {
    return absl::UnimplementedError(
        absl::StrCat(path, ": model_type '", outer_type, nested == nullptr ? "" : "' of '",
                     nested == nullptr ? "" : type, "', expected 'llama', or 'llava' of 'llama'"));
  }
  // Of another model's config the type is told, not what follows from it.
  reader.Expect("hidden_act", {"silu"});
  KINO_RETURN_IF_ERROR(reader.status());
  KINO_RETURN_IF_ERROR(CheckSizes(config, path));
  return config;
}

}  // namespace kino::engine
