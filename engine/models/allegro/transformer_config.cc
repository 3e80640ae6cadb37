#include "engine/models/allegro/transformer_config.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<AllegroTransformerConfig> AllegroTransformerConfig::FromJson(
    const nlohmann::json& json, const std::string& path) {
  ConfigReader reader(json, path);
  AllegroTransformerConfig config;
  config.patch_size = reader.Get("patch_size", config.patch_size);
  config.num_attention_heads = reader.Get("num_attention_heads", config.num_attention_heads);
  config.attention_head_dim = reader.Get("attention_head_dim", config.attention_head_dim);
  config.in_channels = reader.Get("in_channels", config.in_channels);
  config.num_layers = reader.Get("num_layers", config.num_layers);
  config.cross_attention_dim = reader.Get("cross_attention_dim", config.cross_attention_dim);
  config.attention_bias = reader.Get("attention_bias", config.attention_bias);
  config.sample_height = reader.Get("sample_height", config.sample_height);
  config.sample_width = reader.Get("sample_width", config.sample_width);
  config.sample_frames = reader.Get("sample_frames", config.sample_frames);
  config.norm_eps = reader.Get("norm_eps", config.norm_eps);
  config.caption_channels = reader.Get("caption_channels", config.caption_channels);
  config.interpolation_scale_h = reader.Get("interpolation_scale_h", config.interpolation_scale_h);
  config.interpolation_scale_w = reader.Get("interpolation_scale_w", config.interpolation_scale_w);
  config.interpolation_scale_t = reader.Get("interpolation_scale_t", config.interpolation_scale_t);
  const int out_channels = reader.Get("out_channels", config.in_channels);
  const int patch_size_t = reader.Get("patch_size_t", 1);
  reader.Expect("activation_fn", {"gelu-approximate"});
  const bool is_affine = reader.Get("norm_elementwise_affine", false);
  KINO_RETURN_IF_ERROR(reader.status());
  if (is_affine || patch_size_t != 1 || out_channels != config.in_channels) {
    return absl::UnimplementedError(absl::StrCat(
        path, ": norm_elementwise_affine ", is_affine, ", patch_size_t ", patch_size_t,
        ", out_channels ", out_channels, "; expected 0, 1 and in_channels, ", config.in_channels));
  }
  if (config.patch_size < 1 || config.num_attention_heads < 1 || config.attention_head_dim < 1 ||
      config.in_channels < 1 || config.num_layers < 1 || config.sample_height < 1 ||
      config.sample_width < 1 || config.sample_frames < 1 || config.caption_channels < 1 ||
      !(config.interpolation_scale_h > 0) || !(config.interpolation_scale_w > 0) ||
      !(config.interpolation_scale_t > 0)) {
    return absl::InvalidArgumentError(path + ": a size or an interpolation_scale is not positive");
  }
  if (config.attention_head_dim % 6 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": attention_head_dim ", config.attention_head_dim,
                     ", expected a multiple of 6: pairs for each of three axes"));
  }
  if (config.cross_attention_dim != config.width()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cross_attention_dim ", config.cross_attention_dim,
                     ", expected heads * head_dim = ", config.width()));
  }
  return config;
}

}  // namespace kino::engine
