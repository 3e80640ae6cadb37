#include "engine/models/mochi/transformer_config.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr int kPoolHeads = 8;

}  // namespace

absl::StatusOr<MochiTransformerConfig> MochiTransformerConfig::FromJson(const nlohmann::json& json,
                                                                        const std::string& path) {
  ConfigReader reader(json, path);
  MochiTransformerConfig config;
  config.patch_size = reader.Get("patch_size", config.patch_size);
  config.num_attention_heads = reader.Get("num_attention_heads", config.num_attention_heads);
  config.attention_head_dim = reader.Get("attention_head_dim", config.attention_head_dim);
  config.num_layers = reader.Get("num_layers", config.num_layers);
  config.pooled_projection_dim = reader.Get("pooled_projection_dim", config.pooled_projection_dim);
  config.in_channels = reader.Get("in_channels", config.in_channels);
  config.text_embed_dim = reader.Get("text_embed_dim", config.text_embed_dim);
  config.time_embed_dim = reader.Get("time_embed_dim", config.time_embed_dim);
  config.original_layout = reader.Get("original_layout", config.original_layout);
  const int out_channels = reader.Get("out_channels", config.in_channels);
  reader.Expect("activation_fn", {"swiglu"});
  reader.Expect("qk_norm", {"rms_norm"});
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&path](const std::string& what) {
    return absl::UnimplementedError(path + ": " + what);
  };
  if (out_channels != config.in_channels) {
    return refuse(absl::StrCat("out_channels ", out_channels, ", expected in_channels, ",
                               config.in_channels));
  }
  if (config.patch_size < 1 || config.num_attention_heads < 1 || config.attention_head_dim < 2 ||
      config.attention_head_dim % 2 != 0 || config.num_layers < 1 ||
      config.pooled_projection_dim < 1 || config.in_channels < 1 ||
      config.text_embed_dim < kPoolHeads || config.text_embed_dim % kPoolHeads != 0 ||
      config.time_embed_dim < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": a size is not positive, attention_head_dim is odd, or text_embed_dim is no "
                     "multiple of ",
                     kPoolHeads));
  }
  return config;
}

}  // namespace kino::engine
