// Config of CogVideoXTransformer3DModel (diffusers 0.42.1
// models/transformers/cogvideox_transformer_3d.py). Values only; no torch: describe reads it too.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct CogVideoXTransformerConfig {
  int num_attention_heads = 30;
  int attention_head_dim = 64;
  int in_channels = 16;  // twice the latents' where a condition is seen beside them
  int out_channels = 16;
  int time_embed_dim = 512;
  int ofs_embed_dim = 0;  // 0: none
  int text_embed_dim = 4096;
  int num_layers = 30;
  bool attention_bias = true;
  // What positions are made for: latents, and frames.
  int sample_width = 90, sample_height = 60, sample_frames = 49;
  int patch_size = 2;
  int patch_size_t = 0;  // latent frames of a patch in CogVideoX 1.5; 0: the older kind, of one
  int temporal_compression_ratio = 4;
  int max_text_seq_length = 226;
  double norm_eps = 1e-5;
  double spatial_interpolation_scale = 1.875, temporal_interpolation_scale = 1.0;
  bool use_rotary_positional_embeddings = false;
  bool use_learned_positional_embeddings = false;
  bool patch_bias = true;

  // `path` names the file in messages. UNIMPLEMENTED, INVALID_ARGUMENT: options and sizes of no
  // published CogVideoX.
  static absl::StatusOr<CogVideoXTransformerConfig> FromJson(const nlohmann::json& json,
                                                             const std::string& path);
  int64_t width() const { return int64_t{num_attention_heads} * attention_head_dim; }
  int patch_frames() const { return patch_size_t > 0 ? patch_size_t : 1; }
  // Positions are added to the tokens.
  bool adds_positions() const {
    return !use_rotary_positional_embeddings || use_learned_positional_embeddings;
  }
};

}  // namespace kino::engine
