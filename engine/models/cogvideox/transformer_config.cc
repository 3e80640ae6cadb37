#include "engine/models/cogvideox/transformer_config.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<CogVideoXTransformerConfig> CogVideoXTransformerConfig::FromJson(
    const nlohmann::json& json, const std::string& path) {
  ConfigReader reader(json, path);
  CogVideoXTransformerConfig c;
  const auto size = [&reader](const char* key, int& field, int least = 1) {
    field = reader.Within(key, field, least, 1 << 20);
  };
  const auto flag = [&reader](const char* key, bool& field) { field = reader.Get(key, field); };
  size("num_attention_heads", c.num_attention_heads);
  size("attention_head_dim", c.attention_head_dim);
  size("in_channels", c.in_channels);
  size("out_channels", c.out_channels);
  size("time_embed_dim", c.time_embed_dim);
  size("text_embed_dim", c.text_embed_dim);
  size("num_layers", c.num_layers);
  size("sample_width", c.sample_width);
  size("sample_height", c.sample_height);
  size("sample_frames", c.sample_frames);
  size("patch_size", c.patch_size);
  size("temporal_compression_ratio", c.temporal_compression_ratio);
  size("max_text_seq_length", c.max_text_seq_length);
  size("ofs_embed_dim", c.ofs_embed_dim, 0);
  size("patch_size_t", c.patch_size_t, 0);
  c.norm_eps = reader.Within("norm_eps", c.norm_eps, 1e-12, 1.0);
  c.spatial_interpolation_scale =
      reader.Within("spatial_interpolation_scale", c.spatial_interpolation_scale, 1e-6, 1e6);
  c.temporal_interpolation_scale =
      reader.Within("temporal_interpolation_scale", c.temporal_interpolation_scale, 1e-6, 1e6);
  flag("attention_bias", c.attention_bias);
  flag("use_rotary_positional_embeddings", c.use_rotary_positional_embeddings);
  flag("use_learned_positional_embeddings", c.use_learned_positional_embeddings);
  flag("patch_bias", c.patch_bias);
  reader.Expect("activation_fn", {"gelu-approximate"});
  reader.Expect("timestep_activation_fn", {"silu"});
  reader.Within("flip_sin_to_cos", true, true, true);
  reader.Within("norm_elementwise_affine", true, true, true);
  reader.Within("freq_shift", 0, 0, 0);
  KINO_RETURN_IF_ERROR(reader.status());
  if (c.attention_head_dim % 16 != 0 || c.time_embed_dim % 2 != 0 ||
      (c.ofs_embed_dim > 0 && c.ofs_embed_dim != c.time_embed_dim) ||
      (c.use_learned_positional_embeddings && !c.use_rotary_positional_embeddings) ||
      (c.patch_size_t > 0 && c.adds_positions())) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": attention_head_dim is no multiple of 16, time_embed_dim is odd, ofs_embed_dim is "
        "not time_embed_dim, positions are learned and not rotary, or they are added and "
        "patch_size_t is given"));
  }
  return c;
}

}  // namespace kino::engine
