#include "engine/models/hunyuan_video/weight_map.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/file_shapes.h"
#include "engine/core/status.h"
#include "engine/models/hunyuan_video/transformer_config.h"

namespace kino::engine {
namespace {

using Json = nlohmann::json;

constexpr char kComponent[] = "HunyuanVideo transformer";
// What diffusers knows the model by; before it stands the prefix of all of its names.
constexpr char kMark[] = "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias";
constexpr char kDiffusersMark[] =
    "context_embedder.token_refiner.refiner_blocks.0.norm_out.linear.bias";

// Tencent's names, and where they differ those that ComfyUI saves.
const KeyRenames& Renames() {
  static const KeyRenames renames = {
      {"txt_in.t_embedder.", "context_embedder.time_text_embed.timestep_embedder."},
      {"txt_in.c_embedder.", "context_embedder.time_text_embed.text_embedder."},
      {"txt_in.input_embedder.", "context_embedder.proj_in."},
      {"txt_in.individual_token_refiner.blocks.", "context_embedder.token_refiner.refiner_blocks."},
      {"time_in.", "time_text_embed.timestep_embedder."},
      {"guidance_in.", "time_text_embed.guidance_embedder."},
      {"vector_in.", "time_text_embed.text_embedder."},
      {"_embedder.mlp.0.", "_embedder.linear_1."},
      {"_embedder.mlp.2.", "_embedder.linear_2."},
      {"_embedder.in_layer.", "_embedder.linear_1."},
      {"_embedder.out_layer.", "_embedder.linear_2."},
      {"img_in.", "x_embedder."},
      {"final_layer.linear.", "proj_out."},
      {"final_layer.adaLN_modulation.1.", "norm_out.linear."},
      {"adaLN_modulation.1.", "norm_out.linear."},
      {"double_blocks.", "transformer_blocks."},
      {"single_blocks.", "single_transformer_blocks."},
      {"_mod.lin.", "_mod.linear."},
      {"img_mod.", "norm1."},
      {"txt_mod.", "norm1_context."},
      {"modulation.lin.", "modulation.linear."},
      {"modulation.", "norm."},
      {"_attn.qkv.", "_attn_qkv."},
      {"_attn.proj.", "_attn_proj."},
      {"_attn.norm.query_norm.scale", "_attn_q_norm.weight"},
      {"_attn.norm.key_norm.scale", "_attn_k_norm.weight"},
      {"img_attn_q_norm.", "attn.norm_q."},
      {"img_attn_k_norm.", "attn.norm_k."},
      {"img_attn_proj.", "attn.to_out.0."},
      {"txt_attn_q_norm.", "attn.norm_added_q."},
      {"txt_attn_k_norm.", "attn.norm_added_k."},
      {"txt_attn_proj.", "attn.to_add_out."},
      {"self_attn_proj.", "attn.to_out.0."},
      {".norm.query_norm.scale", ".q_norm.weight"},
      {".norm.key_norm.scale", ".k_norm.weight"},
      {".q_norm.", ".attn.norm_q."},
      {".k_norm.", ".attn.norm_k."},
      {".linear2.", ".proj_out."},
      {"mlp.0.", "mlp.fc1."},
      {"mlp.2.", "mlp.fc2."},
      {"img_mlp.", "ff."},
      {"txt_mlp.", "ff_context."},
      {".mlp.", ".ff."},
      {".fc1.", ".net.0.proj."},
      {".fc2.", ".net.2."}};
  return renames;
}

const std::vector<FusedLayer>& FusedLayers() {
  static const std::vector<FusedLayer> layers = {
      {"img_attn_qkv.", {"attn.to_q.", "attn.to_k.", "attn.to_v."}},
      {"txt_attn_qkv.", {"attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj."}},
      {"self_attn_qkv.", {"attn.to_q.", "attn.to_k.", "attn.to_v."}},
      {"linear1.", {"attn.to_q.", "attn.to_k.", "attn.to_v.", "proj_mlp."}}};
  return layers;
}

// Each part of a fused layer but the last has `width` rows.
KeyMap MapOf(const std::string& prefix, int64_t width) {
  return {.name = kComponent,
          .map = [prefix, width](std::string_view original,
                                 const TensorEntry& entry) -> std::vector<MappedTensor> {
            if (!original.starts_with(prefix)) return {};
            return SplitFused(Rename(original.substr(prefix.size()), Renames()), entry, width,
                              FusedLayers());
          }};
}

// What of the folder's config the shapes cannot tell, where it has the same sizes.
void TakeFromFolder(const Json& folder_config, Json& config) {
  auto folder = HunyuanVideoTransformerConfig::FromJson(folder_config, "");
  if (!folder.ok()) return;
  Json merged = config;
  for (const char* key : {"rope_theta", "rope_axes_dim", "image_condition_type"}) {
    if (folder_config.contains(key)) merged[key] = folder_config[key];
  }
  const auto same = HunyuanVideoTransformerConfig::FromJson(merged, "");
  folder->original_layout = true;
  if (same.ok() && *same == *folder) config = std::move(merged);
}

}  // namespace

absl::StatusOr<FoundComponent> FindHunyuanVideoTransformer(const TensorFile& file,
                                                           const Json* folder_config) {
  if (file.tensors().contains(kDiffusersMark))
    return FoundUnderFolderNames(file, kComponent, folder_config);
  const std::optional<std::string> prefix = PrefixOf(file, {kMark});
  if (!prefix)
    return absl::NotFoundError(absl::StrCat("'", file.path(), "' holds no ", kComponent));
  // The gates of the text's blocks are two widths.
  const std::vector<int64_t>& gates = file.tensors().at(absl::StrCat(*prefix, kMark)).shape;
  const int64_t width = gates.empty() ? 0 : gates[0] / 2;
  FoundComponent found{.map = MapOf(*prefix, width), .config = Json::object()};
  FileShapes shapes(file, found.map);
  const int64_t head = shapes.Extent("transformer_blocks.0.attn.norm_q.weight", 0);
  const int64_t patch = shapes.Extent("x_embedder.proj.weight", 4);
  const int64_t in = shapes.Extent("x_embedder.proj.weight", 1);
  const int64_t out = shapes.Extent("proj_out.weight", 0) / (patch * patch);
  const int64_t mlp = shapes.Extent("transformer_blocks.0.ff.net.0.proj.weight", 0);
  found.config = {
      {"_class_name", "HunyuanVideoTransformer3DModel"},
      {"in_channels", in},
      {"out_channels", out},
      {"num_attention_heads", width / head},
      {"attention_head_dim", head},
      {"num_layers", shapes.Count("transformer_blocks.")},
      {"num_single_layers", shapes.Count("single_transformer_blocks.")},
      {"num_refiner_layers", shapes.Count("context_embedder.token_refiner.refiner_blocks.")},
      {"mlp_ratio", static_cast<double>(mlp) / static_cast<double>(std::max<int64_t>(width, 1))},
      {"patch_size", patch},
      {"patch_size_t", shapes.Extent("x_embedder.proj.weight", 2)},
      {"qk_norm", "rms_norm"},
      {"guidance_embeds", shapes.Has("time_text_embed.guidance_embedder.linear_1.weight")},
      {"text_embed_dim", shapes.Extent("context_embedder.proj_in.weight", 1)},
      {"pooled_projection_dim", shapes.Extent("time_text_embed.text_embedder.linear_1.weight", 1)},
      {"original_layout", true}};
  // The image's latents and a mask are beside the video's.
  if (in == 2 * out + 1) found.config["image_condition_type"] = "latent_concat";
  KINO_RETURN_IF_ERROR(shapes.status());
  if (folder_config != nullptr) TakeFromFolder(*folder_config, found.config);
  return found;
}

}  // namespace kino::engine
