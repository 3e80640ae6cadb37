// Config of HunyuanVideoTransformer3DModel and HunyuanVideoFramepackTransformer3DModel (diffusers
// 0.42.1 models/transformers/transformer_hunyuan_video.py, transformer_hunyuan_video_framepack.py).
// Values only; no torch: describe reads it as well.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct HunyuanVideoTransformerConfig {
  // image_condition_type: how an image conditions the video.
  enum class ImageCondition {
    kNone,          // not at all, or in channels that the config does not name (SkyReels)
    kLatentConcat,  // its latents and a mask are more channels of the input
    kTokenReplace,  // its latents are the first frame, whose tokens are modulated as of timestep 0
  };

  int in_channels = 16;
  int out_channels = 16;
  int num_attention_heads = 24;
  int attention_head_dim = 128;
  int num_layers = 20;         // of two streams, video and text
  int num_single_layers = 40;  // of one
  int num_refiner_layers = 2;
  double mlp_ratio = 4.0;
  int patch_size = 2;
  bool guidance_embeds = true;
  int text_embed_dim = 4096;
  int pooled_projection_dim = 768;
  double rope_theta = 256.0;
  std::array<int, 3> rope_axes_dim = {16, 56, 56};  // time, row, column; their sum is a head
  ImageCondition image_condition_type = ImageCondition::kNone;
  // FramePack: the tokens of a history before the latents', of an image before the text's.
  bool is_framepack = false;
  int image_proj_dim = 1152;
  // Shifts before scales in the last norm, as Tencent's own files have them.
  bool original_layout = false;

  // `path` names the file in messages. UNIMPLEMENTED: an option no published model uses.
  // INVALID_ARGUMENT: sizes of no such model.
  static absl::StatusOr<HunyuanVideoTransformerConfig> FromJson(const nlohmann::json& json,
                                                                const std::string& path);
  bool operator==(const HunyuanVideoTransformerConfig&) const = default;
  int64_t width() const { return int64_t{num_attention_heads} * attention_head_dim; }
  int64_t mlp_width() const {
    return static_cast<int64_t>(static_cast<double>(width()) * mlp_ratio);
  }
};

}  // namespace kino::engine
