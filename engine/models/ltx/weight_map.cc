#include "engine/models/ltx/weight_map.h"

#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/file_shapes.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

using Json = nlohmann::json;

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// The transformer's tensors are those that are not the VAE's.
bool IsVae(std::string_view name) { return Contains(name, "vae"); }

const KeyRenames& TransformerRenames() {
  static const KeyRenames renames = {{"model.diffusion_model.", ""},
                                     {"patchify_proj", "proj_in"},
                                     {"adaln_single", "time_embed"},
                                     {"q_norm", "norm_q"},
                                     {"k_norm", "norm_k"}};
  return renames;
}

std::vector<MappedTensor> MapTransformer(std::string_view name, const TensorEntry&) {
  if (IsVae(name)) return {};
  return {{.name = Rename(name, TransformerRenames())}};
}

KeyMap TransformerMap() { return {.name = "LTX-Video transformer", .map = MapTransformer}; }

// Whether a model of `config` would have the sizes of `shaped`; keys as LtxTransformerConfig
// defaults them.
bool Fits(const Json& config, const Json& shaped) {
  const int width =
      IntegerOr(config, "num_attention_heads", 32) * IntegerOr(config, "attention_head_dim", 64);
  const int in_channels = IntegerOr(config, "in_channels", 128);
  return width == shaped["cross_attention_dim"] && in_channels == shaped["in_channels"] &&
         IntegerOr(config, "out_channels", in_channels) == shaped["out_channels"] &&
         IntegerOr(config, "num_layers", 28) == shaped["num_layers"] &&
         IntegerOr(config, "caption_channels", 4096) == shaped["caption_channels"];
}

// What Lightricks' files say of themselves in their metadata; 0 when they do not.
int HeadsInMetadata(const TensorFile& file) {
  const auto found = file.metadata().find("config");
  if (found == file.metadata().end()) return 0;
  const Json json = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("transformer") || !json["transformer"].is_object()) {
    return 0;
  }
  return IntegerOr(json["transformer"], "num_attention_heads", 0);
}

}  // namespace

absl::StatusOr<FoundComponent> FindLtxTransformer(const TensorFile& file,
                                                  const Json* folder_config) {
  FoundComponent component{.map = TransformerMap(), .config = Json::object()};
  FileShapes shapes(file, component.map);
  if (!shapes.Has("transformer_blocks.0.attn2.norm_q.weight")) {
    return absl::NotFoundError(absl::StrCat("'", file.path(), "' holds no LTX-Video transformer"));
  }
  if (shapes.HasPrefix("audio_")) {
    return absl::UnimplementedError(
        absl::StrCat("'", file.path(), "' holds LTX-2, expected LTX-Video"));
  }
  const int64_t width = shapes.Extent("proj_in.weight", 0);
  Json& config = component.config;
  config = {{"_class_name", "LTXVideoTransformer3DModel"},
            {"in_channels", shapes.Extent("proj_in.weight", 1)},
            {"out_channels", shapes.Extent("proj_out.weight", 0)},
            {"patch_size", 1},
            {"patch_size_t", 1},
            {"cross_attention_dim", width},
            {"num_layers", shapes.Count("transformer_blocks.")},
            {"activation_fn", "gelu-approximate"},
            {"qk_norm", "rms_norm_across_heads"},
            {"norm_elementwise_affine", false},
            {"norm_eps", 1e-6},
            {"caption_channels", shapes.Extent("caption_projection.linear_1.weight", 1)},
            {"attention_bias", shapes.Has("transformer_blocks.0.attn1.to_q.bias")},
            {"attention_out_bias", shapes.Has("transformer_blocks.0.attn1.to_out.0.bias")}};
  KINO_RETURN_IF_ERROR(shapes.status());
  if (folder_config != nullptr && Fits(*folder_config, config)) {
    config = *folder_config;
    return component;
  }
  int heads = HeadsInMetadata(file);
  if (heads == 0 && (width == 2048 || width == 4096)) heads = 32;
  if (heads < 1 || width % heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", file.path(), "': a transformer of width ", width, " and ",
        heads == 0 ? "an unknown number of" : absl::StrCat(heads),
        " heads; expected 2048 or 4096, ",
        "a multiple of the number of heads in its metadata, or a folder's transformer/config.json "
        "of this width"));
  }
  config["num_attention_heads"] = heads;
  config["attention_head_dim"] = width / heads;
  return component;
}

}  // namespace kino::engine
