// Configs of CLIP's text encoder and of the vision encoders (transformers 5.23
// models/clip/configuration_clip.py, models/siglip/configuration_siglip.py,
// models/llava/configuration_llava.py). Values only; no torch: the planner reads them as well.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// What is between the two layers of an encoder's feed-forward.
enum class ClipActivation {
  kQuickGelu,  // x * sigmoid(1.702 x)
  kGelu,       // exact
  kGeluTanh,   // "gelu_pytorch_tanh"
};

// The layers that all of these encoders have.
struct ClipLayersConfig {
  int hidden_size = 512;
  int intermediate_size = 2048;
  int num_hidden_layers = 12;
  int num_attention_heads = 8;
  double layer_norm_eps = 1e-5;
  ClipActivation activation = ClipActivation::kQuickGelu;
};

struct ClipTextConfig {
  ClipLayersConfig layers;
  int vocab_size = 49408;
  int max_position_embeddings = 77;
  // 2 as in files before transformers 4.31: the text ends at its highest id.
  int eos_token_id = 49407;

  // `path` names the file in messages. UNIMPLEMENTED: another architecture or activation.
  static absl::StatusOr<ClipTextConfig> FromJson(const nlohmann::json& json,
                                                 const std::string& path);
};

struct VisionEncoderConfig {
  ClipLayersConfig layers;
  int num_channels = 3;
  int image_size = 224;
  int patch_size = 16;
  // SigLIP, else the CLIP tower of a LLaVA.
  bool is_siglip = false;
  // Of a LLaVA. The layers that are run: its vision_feature_layer, counted from the first.
  int layers_run = 12;
  bool keeps_class_token = false;  // vision_feature_select_strategy "full"
  int projection_size = 0;         // the text model's width; 0: no projector
  bool projector_bias = true;

  // Of a SiglipVisionModel or a LLaVA. `path` names the file in messages. UNIMPLEMENTED: another
  // architecture, tower or activation. INVALID_ARGUMENT: a value that no such model has, or
  // features of several layers.
  static absl::StatusOr<VisionEncoderConfig> FromJson(const nlohmann::json& json,
                                                      const std::string& path);

  int patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  // Of an image's features.
  int tokens() const { return patches() + (keeps_class_token ? 1 : 0); }
  int width() const { return projection_size > 0 ? projection_size : layers.hidden_size; }
};

}  // namespace kino::engine
