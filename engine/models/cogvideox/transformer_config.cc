#include "engine/models/cogvideox/transformer_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<CogVideoXTransformerConfig> CogVideoXTransformerConfig::FromJson(
    const nlohmann::json& json, const std::string& path) {
  ConfigReader reader(json, path);
  CogVideoXTransformerConfig c;
  for (const auto& [key, field] : {std::pair{"num_attention_heads", &c.num_attention_heads},
                                   {"attention_head_dim", &c.attention_head_dim},
                                   {"in_channels", &c.in_channels},
                                   {"out_channels", &c.out_channels},
                                   {"time_embed_dim", &c.time_embed_dim},
                                   {"ofs_embed_dim", &c.ofs_embed_dim},
                                   {"text_embed_dim", &c.text_embed_dim},
                                   {"num_layers", &c.num_layers},
                                   {"sample_width", &c.sample_width},
                                   {"sample_height", &c.sample_height},
                                   {"sample_frames", &c.sample_frames},
                                   {"patch_size", &c.patch_size},
                                   {"patch_size_t", &c.patch_size_t},
                                   {"temporal_compression_ratio", &c.temporal_compression_ratio},
                                   {"max_text_seq_length", &c.max_text_seq_length}}) {
    *field = reader.Get(key, *field);
  }
  for (const auto& [key, field] :
       {std::pair{"norm_eps", &c.norm_eps},
        {"spatial_interpolation_scale", &c.spatial_interpolation_scale},
        {"temporal_interpolation_scale", &c.temporal_interpolation_scale}}) {
    *field = reader.Get(key, *field);
  }
  for (const auto& [key, field] :
       {std::pair{"attention_bias", &c.attention_bias},
        {"use_rotary_positional_embeddings", &c.use_rotary_positional_embeddings},
        {"use_learned_positional_embeddings", &c.use_learned_positional_embeddings},
        {"patch_bias", &c.patch_bias}}) {
    *field = reader.Get(key, *field);
  }
  const std::string activation = reader.Get("activation_fn", std::string("gelu-approximate"));
  const std::string of_timestep = reader.Get("timestep_activation_fn", std::string("silu"));
  const bool flips = reader.Get("flip_sin_to_cos", true);
  const int freq_shift = reader.Get("freq_shift", 0);
  const bool has_affine = reader.Get("norm_elementwise_affine", true);
  KINO_RETURN_IF_ERROR(reader.status());
  const std::pair<bool, std::string> unknown[] = {
      {activation != "gelu-approximate", "activation_fn '" + activation + "'"},
      {of_timestep != "silu", "timestep_activation_fn '" + of_timestep + "'"},
      {!flips, "flip_sin_to_cos false"},
      {freq_shift != 0, absl::StrCat("freq_shift ", freq_shift)},
      {!has_affine, "norm_elementwise_affine false"},
      {c.patch_size_t > 0 && c.adds_positions(), "patch_size_t with positions that are added"},
      {c.ofs_embed_dim > 0 && c.ofs_embed_dim != c.time_embed_dim,
       absl::StrCat("ofs_embed_dim ", c.ofs_embed_dim, " beside time_embed_dim ",
                    c.time_embed_dim)}};
  for (const auto& [is_so, what] : unknown) {
    if (is_so)
      return absl::UnimplementedError(
          absl::StrCat(path, ": ", what, ", as no published CogVideoX"));
  }
  constexpr int kMost = 1 << 20;
  for (const int size : {c.num_attention_heads, c.attention_head_dim, c.in_channels, c.out_channels,
                         c.time_embed_dim, c.text_embed_dim, c.num_layers, c.sample_width,
                         c.sample_height, c.sample_frames, c.patch_size, c.patch_frames(),
                         c.temporal_compression_ratio, c.max_text_seq_length}) {
    if (size < 1 || size > kMost) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": a size is ", size, ", expected 1 to ", kMost));
    }
  }
  if (c.attention_head_dim % 16 != 0 || c.time_embed_dim % 2 != 0 ||
      std::min({c.norm_eps, c.spatial_interpolation_scale, c.temporal_interpolation_scale}) <= 0 ||
      (c.use_learned_positional_embeddings && !c.use_rotary_positional_embeddings)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": attention_head_dim is no multiple of 16, time_embed_dim is odd, norm_eps or "
        "a scale is not above 0, or positions are learned and not rotary"));
  }
  return c;
}

}  // namespace kino::engine
