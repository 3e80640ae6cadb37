#include "engine/models/ltx/transformer_config.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<LtxTransformerConfig> LtxTransformerConfig::FromJson(const nlohmann::json& json,
                                                                    const std::string& path) {
  ConfigReader reader(json, path);
  LtxTransformerConfig config;
  config.in_channels = reader.Get("in_channels", config.in_channels);
  config.out_channels = reader.Get("out_channels", config.in_channels);
  config.num_attention_heads = reader.Get("num_attention_heads", config.num_attention_heads);
  config.attention_head_dim = reader.Get("attention_head_dim", config.attention_head_dim);
  config.cross_attention_dim = reader.Get("cross_attention_dim", config.cross_attention_dim);
  config.num_layers = reader.Get("num_layers", config.num_layers);
  config.caption_channels = reader.Get("caption_channels", config.caption_channels);
  config.norm_eps = reader.Get("norm_eps", config.norm_eps);
  config.attention_bias = reader.Get("attention_bias", config.attention_bias);
  config.attention_out_bias = reader.Get("attention_out_bias", config.attention_out_bias);
  reader.Expect("activation_fn", {"gelu-approximate"});
  reader.Expect("qk_norm", {"rms_norm_across_heads"});
  const bool affine = reader.Get("norm_elementwise_affine", false);
  const int patch = reader.Get("patch_size", 1);
  const int patch_t = reader.Get("patch_size_t", 1);
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&path](const std::string& what) {
    return absl::UnimplementedError(path + ": " + what);
  };
  if (affine) return refuse("norm_elementwise_affine true, expected false");
  if (patch != 1 || patch_t != 1)
    return refuse(
        absl::StrCat("patch_size ", patch, ", patch_size_t ", patch_t, ", expected 1, 1"));
  if (config.in_channels < 1 || config.out_channels != config.in_channels ||
      config.num_attention_heads < 1 || config.attention_head_dim < 1 || config.num_layers < 1 ||
      config.caption_channels < 1 || config.width() % 2 != 0) {
    return absl::InvalidArgumentError(
        path +
        ": a size is not positive, the width is odd, or in_channels and "
        "out_channels differ");
  }
  if (config.cross_attention_dim != config.width()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": cross_attention_dim ", config.cross_attention_dim,
                     ", expected heads * head_dim = ", config.width()));
  }
  return config;
}

}  // namespace kino::engine
