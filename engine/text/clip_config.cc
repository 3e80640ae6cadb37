#include "engine/text/clip_config.h"

#include <climits>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr int kMostLayers = 1000;

absl::StatusOr<ClipActivation> ActivationOf(const std::string& name, const std::string& path) {
  if (name == "quick_gelu") return ClipActivation::kQuickGelu;
  if (name == "gelu") return ClipActivation::kGelu;
  if (name == "gelu_pytorch_tanh") return ClipActivation::kGeluTanh;
  return absl::UnimplementedError(absl::StrCat(
      path, ": hidden_act '", name, "', expected 'quick_gelu', 'gelu' or 'gelu_pytorch_tanh'"));
}

const char* NameOf(ClipActivation activation) {
  return activation == ClipActivation::kQuickGelu ? "quick_gelu" : "gelu_pytorch_tanh";
}

// defaults: the class's.
absl::StatusOr<ClipLayersConfig> ReadLayers(ConfigReader& reader, const ClipLayersConfig& defaults,
                                            const std::string& path) {
  ClipLayersConfig config;
  config.hidden_size = reader.Get("hidden_size", defaults.hidden_size);
  config.intermediate_size = reader.Get("intermediate_size", defaults.intermediate_size);
  config.num_hidden_layers =
      reader.Within("num_hidden_layers", defaults.num_hidden_layers, 1, kMostLayers);
  config.num_attention_heads = reader.Get("num_attention_heads", defaults.num_attention_heads);
  config.layer_norm_eps = reader.Get("layer_norm_eps", defaults.layer_norm_eps);
  const std::string activation = reader.Get("hidden_act", std::string(NameOf(defaults.activation)));
  KINO_RETURN_IF_ERROR(reader.status());
  KINO_ASSIGN_OR_RETURN(config.activation, ActivationOf(activation, path));
  if (config.hidden_size < 1 || config.intermediate_size < 1 || config.num_attention_heads < 1) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a size is not positive"));
  }
  if (config.hidden_size % config.num_attention_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": hidden_size is ", config.hidden_size,
                                                   ", expected a multiple of num_attention_heads ",
                                                   config.num_attention_heads));
  }
  return config;
}

// Layers, sizes and patches of a tower; defaults: its class's.
absl::Status ReadTower(ConfigReader& reader, const VisionEncoderConfig& defaults,
                       const std::string& path, VisionEncoderConfig& config) {
  KINO_ASSIGN_OR_RETURN(config.layers, ReadLayers(reader, defaults.layers, path));
  config.num_channels = reader.Within("num_channels", 3, 3, 3);
  config.image_size = reader.Get("image_size", defaults.image_size);
  config.patch_size = reader.Get("patch_size", defaults.patch_size);
  KINO_RETURN_IF_ERROR(reader.status());
  constexpr int kLargest = 16384;
  if (config.patch_size < 1 || config.image_size < config.patch_size ||
      config.image_size > kLargest) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": images of ", config.image_size, " in patches of ", config.patch_size,
                     "; expected at least one patch, and images of at most ", kLargest));
  }
  return absl::OkStatus();
}

absl::StatusOr<VisionEncoderConfig> ReadSiglip(const nlohmann::json& json,
                                               const std::string& path) {
  ConfigReader reader(json, path);
  const VisionEncoderConfig defaults{.layers = {.hidden_size = 768,
                                                .intermediate_size = 3072,
                                                .num_hidden_layers = 12,
                                                .num_attention_heads = 12,
                                                .layer_norm_eps = 1e-6,
                                                .activation = ClipActivation::kGeluTanh},
                                     .image_size = 224,
                                     .patch_size = 16};
  VisionEncoderConfig config;
  KINO_RETURN_IF_ERROR(ReadTower(reader, defaults, path, config));
  config.is_siglip = true;
  config.layers_run = config.layers.num_hidden_layers;
  return config;
}

// The layers that are run for the features of one of them, counted from 1, or from the last, -1.
absl::StatusOr<int> LayersRun(int feature_layer, int layers, const std::string& path) {
  const int run = feature_layer < 0 ? layers + 1 + feature_layer : feature_layer;
  if (run < 1 || run > layers) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": vision_feature_layer is ",
                                                   feature_layer, ", expected 1 to ", layers,
                                                   ", or ", -layers, " to -1"));
  }
  return run;
}

absl::StatusOr<VisionEncoderConfig> ReadLlava(const nlohmann::json& json, const std::string& path) {
  for (const char* part : {"vision_config", "text_config"}) {
    if (!json.contains(part) || !json[part].is_object())
      return absl::InvalidArgumentError(absl::StrCat(path, ": no ", part, ", which a LLaVA has"));
  }
  const std::string where = path + " (vision_config)";
  ConfigReader outer(json, path), reader(json["vision_config"], where),
      text(json["text_config"], path + " (text_config)");
  const std::string type = reader.Get("model_type", std::string("clip_vision_model"));
  if (type != "clip_vision_model") {
    return absl::UnimplementedError(
        absl::StrCat(where, ": model_type '", type, "', expected 'clip_vision_model'"));
  }
  const VisionEncoderConfig defaults{.layers = {.hidden_size = 768,
                                                .intermediate_size = 3072,
                                                .num_hidden_layers = 12,
                                                .num_attention_heads = 12,
                                                .layer_norm_eps = 1e-5,
                                                .activation = ClipActivation::kQuickGelu},
                                     .image_size = 224,
                                     .patch_size = 32};
  VisionEncoderConfig config;
  KINO_RETURN_IF_ERROR(ReadTower(reader, defaults, where, config));
  const int feature_layer = outer.Get("vision_feature_layer", -2);
  const std::string strategy = outer.Get("vision_feature_select_strategy", std::string("default"));
  outer.Expect("projector_hidden_act", {"gelu"});
  config.projector_bias = outer.Get("multimodal_projector_bias", true);
  config.projection_size = text.Within("hidden_size", 4096, 1, INT_MAX);
  KINO_RETURN_IF_ERROR(outer.status());
  KINO_RETURN_IF_ERROR(text.status());
  if (strategy != "default" && strategy != "full") {
    return absl::UnimplementedError(absl::StrCat(path, ": vision_feature_select_strategy '",
                                                 strategy, "', expected 'default' or 'full'"));
  }
  config.keeps_class_token = strategy == "full";
  KINO_ASSIGN_OR_RETURN(config.layers_run,
                        LayersRun(feature_layer, config.layers.num_hidden_layers, path));
  return config;
}

}  // namespace

absl::StatusOr<ClipTextConfig> ClipTextConfig::FromJson(const nlohmann::json& json,
                                                        const std::string& path) {
  ConfigReader reader(json, path);
  const std::string type = reader.Get("model_type", std::string("clip_text_model"));
  KINO_RETURN_IF_ERROR(reader.status());
  if (type != "clip_text_model") {
    return absl::UnimplementedError(
        absl::StrCat(path, ": model_type '", type, "', expected 'clip_text_model'"));
  }
  ClipTextConfig config;
  KINO_ASSIGN_OR_RETURN(config.layers, ReadLayers(reader, config.layers, path));
  config.vocab_size = reader.Within("vocab_size", config.vocab_size, 1, INT_MAX);
  config.max_position_embeddings =
      reader.Within("max_position_embeddings", config.max_position_embeddings, 1, INT_MAX);
  config.eos_token_id = reader.Get("eos_token_id", config.eos_token_id);
  KINO_RETURN_IF_ERROR(reader.status());
  return config;
}

absl::StatusOr<VisionEncoderConfig> VisionEncoderConfig::FromJson(const nlohmann::json& json,
                                                                  const std::string& path) {
  ConfigReader reader(json, path);
  const std::string type = reader.Get("model_type", std::string());
  KINO_RETURN_IF_ERROR(reader.status());
  if (type == "siglip_vision_model") return ReadSiglip(json, path);
  if (type == "llava") return ReadLlava(json, path);
  return absl::UnimplementedError(
      absl::StrCat(path, ": model_type '", type, "', expected 'siglip_vision_model' or 'llava'"));
}

}  // namespace kino::engine
