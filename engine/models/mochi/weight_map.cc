#include "engine/models/mochi/weight_map.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/core/file_shapes.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

using Json = nlohmann::json;
using Renames = std::vector<std::pair<std::string_view, std::string_view>>;

constexpr char kPrefix[] = "model.diffusion_model.";

// Whether `name` began with `prefix`, which is then taken off.
bool Consume(std::string_view& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  return true;
}

std::string_view WithoutPrefix(std::string_view name) {
  Consume(name, kPrefix);
  return name;
}

// Beginnings of names outside of the blocks, and within a block.
const Renames& Outside() {
  static const Renames renames = {{"x_embedder.proj.", "patch_embed.proj."},
                                  {"t_embedder.mlp.0.", "time_embed.timestep_embedder.linear_1."},
                                  {"t_embedder.mlp.2.", "time_embed.timestep_embedder.linear_2."},
                                  {"t5_y_embedder.", "time_embed.pooler."},
                                  {"t5_yproj.", "time_embed.caption_proj."},
                                  {"final_layer.mod.", "norm_out.linear."},
                                  {"final_layer.linear.", "proj_out."},
                                  {"pos_frequencies", "pos_frequencies"}};
  return renames;
}
const Renames& Inside(bool is_last) {
  static const Renames common = {{"mod_x.", "norm1.linear."},
                                 {"attn.q_norm_x.", "attn1.norm_q."},
                                 {"attn.k_norm_x.", "attn1.norm_k."},
                                 {"attn.q_norm_y.", "attn1.norm_added_q."},
                                 {"attn.k_norm_y.", "attn1.norm_added_k."},
                                 {"attn.proj_x.", "attn1.to_out.0."},
                                 {"mlp_x.w1.", "ff.net.0.proj."},
                                 {"mlp_x.w2.", "ff.net.2."},
                                 {"attn.proj_y.", "attn1.to_add_out."},
                                 {"mlp_y.w1.", "ff_context.net.0.proj."},
                                 {"mlp_y.w2.", "ff_context.net.2."},
                                 {"mod_y.", "norm1_context.linear."}};
  static const Renames last = [] {
    Renames renames = common;
    renames.back().second = "norm1_context.linear_1.";
    return renames;
  }();
  return is_last ? last : common;
}

std::optional<std::string> Rename(std::string_view name, const Renames& renames) {
  for (const auto& [from, to] : renames) {
    if (name.starts_with(from))
      return absl::StrCat(std::string(to), std::string(name.substr(from.size())));
  }
  return std::nullopt;
}

// Fused projections: equal stretches of rows for each of these.
std::vector<MappedTensor> Split(const std::string& block, const std::array<const char*, 3>& names,
                                const TensorEntry& entry) {
  const int64_t rows = entry.shape.empty() ? 0 : entry.shape[0] / 3;
  std::vector<MappedTensor> mapped;
  for (size_t i = 0; i < names.size(); ++i) {
    mapped.push_back({.name = absl::StrCat(block, "attn1.", names[i], ".weight"),
                      .first_row = static_cast<int64_t>(i) * rows,
                      .rows = rows});
  }
  return mapped;
}

KeyMap MapOf(int blocks) {
  return {.name = "Mochi transformer",
          .map = [blocks](std::string_view original,
                          const TensorEntry& entry) -> std::vector<MappedTensor> {
            std::string_view name = WithoutPrefix(original);
            if (!Consume(name, "blocks.")) {
              const std::optional<std::string> renamed = Rename(name, Outside());
              if (!renamed) return {};
              return {{.name = *renamed}};
            }
            const size_t dot = name.find('.');
            int index = 0;
            if (dot == std::string_view::npos ||
                !absl::SimpleAtoi(std::string(name.substr(0, dot)), &index))
              return {};
            name.remove_prefix(dot + 1);
            const std::string block = absl::StrCat("transformer_blocks.", index, ".");
            if (name == "attn.qkv_x.weight") return Split(block, {"to_q", "to_k", "to_v"}, entry);
            if (name == "attn.qkv_y.weight")
              return Split(block, {"add_q_proj", "add_k_proj", "add_v_proj"}, entry);
            const std::optional<std::string> renamed =
                Rename(name, Inside(/*is_last=*/index + 1 == blocks));
            if (!renamed) return {};
            return {{.name = block + *renamed}};
          }};
}

// blocks.0., blocks.1., ... of the file.
int CountBlocks(const TensorFile& file) {
  const KeyMap same = {
      .name = "Mochi transformer", .map = [](std::string_view name, const TensorEntry&) {
        return std::vector<MappedTensor>{{.name = std::string(WithoutPrefix(name))}};
      }};
  return FileShapes(file, same).Count("blocks.");
}

bool HoldsTransformer(const TensorFile& file) {
  const TensorMap& tensors = file.tensors();
  return tensors.contains("t5_y_embedder.to_kv.weight") ||
         tensors.contains(absl::StrCat(kPrefix, "t5_y_embedder.to_kv.weight"));
}

}  // namespace

absl::StatusOr<FoundComponent> FindMochiTransformer(const TensorFile& file, const Json*) {
  if (!HoldsTransformer(file)) {
    return absl::NotFoundError(absl::StrCat("'", file.path(), "' holds no Mochi transformer"));
  }
  const int blocks = CountBlocks(file);
  FoundComponent found{.map = MapOf(blocks), .config = Json::object()};
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
