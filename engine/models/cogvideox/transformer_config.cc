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
  const auto refuse = [&path](const std::string& what) {
    return absl::UnimplementedError(path + ": " + what);
  };
  if (activation != "gelu-approximate")
    return refuse(absl::StrCat("activation_fn '", activation, "', expected 'gelu-approximate'"));
  if (of_timestep != "silu")
    return refuse(absl::StrCat("timestep_activation_fn '", of_timestep, "', expected 'silu'"));
  if (!flips) return refuse("flip_sin_to_cos false, expected true");
  if (freq_shift != 0) return refuse(absl::StrCat("freq_shift ", freq_shift, ", expected 0"));
  if (!has_affine) return refuse("norm_elementwise_affine false, expected true");
  const auto invalid = [&path](const std::string& what) {
    return absl::InvalidArgumentError(path + ": " + what);
  };
  constexpr int kMost = 1 << 20;
  for (const int size :
       {c.num_attention_heads, c.attention_head_dim, c.in_channels, c.out_channels,
        c.time_embed_dim, c.text_embed_dim, c.num_layers, c.sample_width, c.sample_height,
        c.sample_frames, c.patch_size, c.temporal_compression_ratio, c.max_text_seq_length}) {
    if (size < 1 || size > kMost)
      return invalid(absl::StrCat("a size is ", size, ", expected 1 to ", kMost));
  }
  if (c.attention_head_dim % 16 != 0) {
    return invalid(absl::StrCat("attention_head_dim is ", c.attention_head_dim,
                                ", expected a multiple of 16"));
  }
  if (c.time_embed_dim % 2 != 0 || c.ofs_embed_dim < 0 || c.ofs_embed_dim % 2 != 0 ||
      (c.ofs_embed_dim > 0 && c.ofs_embed_dim != c.time_embed_dim)) {
    return invalid(absl::StrCat("time_embed_dim is ", c.time_embed_dim, " and ofs_embed_dim ",
                                c.ofs_embed_dim, ", expected even and the same, or no ofs"));
  }
  if (c.patch_size_t < 0 || c.patch_size_t > kMost)
    return invalid(absl::StrCat("patch_size_t is ", c.patch_size_t, ", expected at least 1"));
  if (std::min({c.norm_eps, c.spatial_interpolation_scale, c.temporal_interpolation_scale}) <= 0)
    return invalid("norm_eps or an interpolation scale is not above 0");
  if (c.use_learned_positional_embeddings && !c.use_rotary_positional_embeddings)
    return invalid("use_learned_positional_embeddings without use_rotary_positional_embeddings");
  if (c.patch_size_t > 0 && c.adds_positions())
    return refuse("patch_size_t with positions that are added, expected rotary ones alone");
  return c;
}

}  // namespace kino::engine
