#include "engine/models/mochi/weight_map.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/file_shapes.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr char kComponent[] = "Mochi transformer";
constexpr char kBlocks[] = "transformer_blocks.";

const KeyRenames& Renames() {
  static const KeyRenames renames = {
      {"model.diffusion_model.", ""},
      {"blocks.", kBlocks},
      {"x_embedder.proj.", "patch_embed.proj."},
      {"t_embedder.mlp.0.", "time_embed.timestep_embedder.linear_1."},
      {"t_embedder.mlp.2.", "time_embed.timestep_embedder.linear_2."},
      {"t5_y_embedder.", "time_embed.pooler."},
      {"t5_yproj.", "time_embed.caption_proj."},
      {"final_layer.mod.", "norm_out.linear."},
      {"final_layer.linear.", "proj_out."},
      {"mod_x.", "norm1.linear."},
      {"mod_y.", "norm1_context.linear."},
      {"attn.q_norm_x.", "attn1.norm_q."},
      {"attn.k_norm_x.", "attn1.norm_k."},
      {"attn.q_norm_y.", "attn1.norm_added_q."},
      {"attn.k_norm_y.", "attn1.norm_added_k."},
      {"attn.proj_x.", "attn1.to_out.0."},
      {"attn.proj_y.", "attn1.to_add_out."},
      {"mlp_x.w1.", "ff.net.0.proj."},
      {"mlp_x.w2.", "ff.net.2."},
      {"mlp_y.w1.", "ff_context.net.0.proj."},
      {"mlp_y.w2.", "ff_context.net.2."}};
  return renames;
}

// Of a file that holds other components too, the transformer's tensors.
bool IsOfTransformer(std::string_view renamed) {
  for (const std::string_view part :
       {kBlocks, "patch_embed.", "time_embed.", "norm_out.", "proj_out.", "pos_frequencies"}) {
    if (renamed.starts_with(part)) return true;
  }
  return false;
}

const std::vector<FusedLayer>& FusedLayers() {
  static const std::vector<FusedLayer> layers = {
      {"attn.qkv_x.", {"attn1.to_q.", "attn1.to_k.", "attn1.to_v."}},
      {"attn.qkv_y.", {"attn1.add_q_proj.", "attn1.add_k_proj.", "attn1.add_v_proj."}}};
  return layers;
}

KeyMap MapOf(int blocks) {
  const std::string last_text = absl::StrCat(kBlocks, blocks - 1, ".norm1_context.linear");
  return {.name = kComponent,
          .map = [last_text](std::string_view original,
                             const TensorEntry& entry) -> std::vector<MappedTensor> {
            std::string name = Rename(original, Renames());
            if (!IsOfTransformer(name)) return {};
            // The last block's text has a scale alone, and so a layer of another name.
            if (name.starts_with(last_text + ".")) name.insert(last_text.size(), "_1");
            return SplitFused(std::move(name), entry, std::nullopt, FusedLayers());
          }};
}

}  // namespace

absl::StatusOr<FoundComponent> FindMochiTransformer(const TensorFile& file, const nlohmann::json*) {
  const FileShapes uncounted(file, MapOf(0));
  if (!uncounted.Has("time_embed.pooler.to_kv.weight"))
    return absl::NotFoundError(absl::StrCat("'", file.path(), "' holds no ", kComponent));
  const int blocks = uncounted.Count(kBlocks);
  FoundComponent found{.map = MapOf(blocks), .config = nlohmann::json::object()};
  FileShapes shapes(file, found.map);
  const int64_t head = shapes.Extent("transformer_blocks.0.attn1.norm_q.weight", 0);
  const int64_t sinusoids = shapes.Extent("time_embed.timestep_embedder.linear_1.weight", 1);
  const int64_t heads = shapes.Extent("pos_frequencies", 1);
  found.config = {{"_class_name", "MochiTransformer3DModel"},
                  {"patch_size", shapes.Extent("patch_embed.proj.weight", 2)},
                  {"num_attention_heads", heads},
                  {"attention_head_dim", head},
                  {"num_layers", blocks},
                  {"pooled_projection_dim", shapes.Extent("time_embed.caption_proj.weight", 0)},
                  {"in_channels", shapes.Extent("patch_embed.proj.weight", 1)},
                  {"text_embed_dim", shapes.Extent("time_embed.caption_proj.weight", 1)},
                  {"time_embed_dim", sinusoids},
                  {"activation_fn", "swiglu"},
                  {"qk_norm", "rms_norm"}};
  KINO_RETURN_IF_ERROR(shapes.status());
  found.config["original_layout"] = true;
  return found;
}

}  // namespace kino::engine
