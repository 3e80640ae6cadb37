#include "engine/models/hunyuan_video/transformer_config.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

using Config = HunyuanVideoTransformerConfig;

constexpr char kFramepackClass[] = "HunyuanVideoFramepackTransformer3DModel";

// diffusers builds FramePack's model without its embedders, but cannot run it so.
absl::Status ReadFramepack(ConfigReader& reader, const std::string& path, Config& config) {
  const bool is_class = reader.Get("_class_name", std::string()) == kFramepackClass;
  const bool image = reader.Get("has_image_proj", false);
  const bool clean = reader.Get("has_clean_x_embedder", false);
  config.image_proj_dim = reader.Within("image_proj_dim", config.image_proj_dim, 1, 1 << 20);
  KINO_RETURN_IF_ERROR(reader.status());
  config.is_framepack = is_class || image || clean;
  if (!config.is_framepack) return absl::OkStatus();
  if (!image || !clean) {
    return absl::UnimplementedError(
        absl::StrCat(path, ": a FramePack transformer with has_image_proj ", image,
                     " and has_clean_x_embedder ", clean, ", expected true and true"));
  }
  if (config.patch_size != 2 || config.image_condition_type != Config::ImageCondition::kNone) {
    return absl::UnimplementedError(absl::StrCat(
        path, ": a FramePack transformer of patch_size ", config.patch_size,
        " or with an image_condition_type, expected patch_size 2 and no image_condition_type"));
  }
  return absl::OkStatus();
}

// The angles of a head are those of the three axes, each in pairs.
absl::Status CheckAxes(const std::vector<int>& axes, const std::string& path, Config& config) {
  int64_t sum = 0;
  for (const int dim : axes) sum += dim;
  const bool has_pairs =
      std::all_of(axes.begin(), axes.end(), [](int dim) { return dim >= 2 && dim % 2 == 0; });
  if (axes.size() != config.rope_axes_dim.size() || !has_pairs ||
      sum != config.attention_head_dim) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": rope_axes_dim [", absl::StrJoin(axes, ", "),
                     "], expected three even numbers whose sum is attention_head_dim, ",
                     config.attention_head_dim));
  }
  std::copy(axes.begin(), axes.end(), config.rope_axes_dim.begin());
  return absl::OkStatus();
}

absl::Status ReadImageCondition(const std::string& type, const std::string& path, Config& config) {
  if (type.empty()) return absl::OkStatus();
  if (type == "latent_concat") {
    config.image_condition_type = Config::ImageCondition::kLatentConcat;
  } else if (type == "token_replace") {
    config.image_condition_type = Config::ImageCondition::kTokenReplace;
  } else {
    return absl::UnimplementedError(
        absl::StrCat(path, ": image_condition_type '", type,
                     "', expected 'latent_concat', 'token_replace' or none"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HunyuanVideoTransformerConfig> HunyuanVideoTransformerConfig::FromJson(
    const nlohmann::json& json, const std::string& path) {
  ConfigReader reader(json, path);
  HunyuanVideoTransformerConfig c;
  const auto size = [&reader](const char* key, int& field, int least = 1, int most = 1 << 16) {
    field = reader.Within(key, field, least, most);
  };
  size("in_channels", c.in_channels);
  // diffusers takes in_channels for 0 as well as for none.
  c.out_channels = 0;
  size("out_channels", c.out_channels, 0);
  if (c.out_channels == 0) c.out_channels = json.contains("out_channels") ? c.in_channels : 16;
  size("num_attention_heads", c.num_attention_heads, 1, 1024);
  size("attention_head_dim", c.attention_head_dim, 1, 1024);
  size("num_layers", c.num_layers, 1, 1024);
  size("num_single_layers", c.num_single_layers, 1, 1024);
  size("num_refiner_layers", c.num_refiner_layers, 1, 1024);
  size("patch_size", c.patch_size, 1, 64);
  size("text_embed_dim", c.text_embed_dim);
  size("pooled_projection_dim", c.pooled_projection_dim);
  c.mlp_ratio = reader.Within("mlp_ratio", c.mlp_ratio, 1e-3, 1e3);
  c.rope_theta = reader.Within("rope_theta", c.rope_theta, 1.0, 1e9);
  c.guidance_embeds = reader.Get("guidance_embeds", c.guidance_embeds);
  c.original_layout = reader.Get("original_layout", c.original_layout);
  const std::vector<int> axes =
      reader.Get("rope_axes_dim", std::vector<int>(c.rope_axes_dim.begin(), c.rope_axes_dim.end()));
  const std::string qk_norm = reader.Get("qk_norm", std::string("rms_norm"));
  const std::string image = reader.Get("image_condition_type", std::string());
  const int patch_frames = reader.Get("patch_size_t", 1);
  KINO_RETURN_IF_ERROR(reader.status());
  if (qk_norm != "rms_norm" || patch_frames != 1) {
    return absl::UnimplementedError(absl::StrCat(path, ": qk_norm '", qk_norm,
                                                 "' and patch_size_t ", patch_frames,
                                                 ", expected 'rms_norm' and 1"));
  }
  KINO_RETURN_IF_ERROR(ReadImageCondition(image, path, c));
  KINO_RETURN_IF_ERROR(CheckAxes(axes, path, c));
  if (c.mlp_width() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": mlp_ratio ", c.mlp_ratio, " leaves no width between the layers"));
  }
  KINO_RETURN_IF_ERROR(ReadFramepack(reader, path, c));
  return c;
}

}  // namespace kino::engine
