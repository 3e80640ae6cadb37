#include "server/config/plan_reader.h"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/describe/weight_plan.h"

namespace kino::config {
namespace {

void Text(MapReader& map, const std::string& key, std::optional<std::string>& out) {
  std::string text;
  if (map.String(key, text)) out = std::move(text);
}

void Limit(MapReader& map, const std::string& key, std::optional<int64_t>& out) {
  int64_t bytes = 0;
  if (map.Bytes(key, bytes, 1, std::numeric_limits<int64_t>::max())) out = bytes;
}

// true (diffusers' sizes), false, or a map of sizes.
void ReadTiling(MapReader& plan, std::optional<engine::VaeTiling>& out) {
  const YAML::Node node = plan.Take("vae_tiling");
  if (node.IsDefined() && node.IsScalar()) {
    bool is_on = false;
    if (plan.Bool("vae_tiling", is_on) && is_on) out.emplace();
    return;
  }
  plan.Map("vae_tiling", [&](MapReader& map) {
    engine::VaeTiling tiling;
    map.OptionalInteger("tile_sample_min_height", tiling.tile_sample_min_height);
    map.OptionalInteger("tile_sample_min_width", tiling.tile_sample_min_width);
    map.OptionalInteger("tile_sample_min_num_frames", tiling.tile_sample_min_num_frames);
    map.OptionalInteger("tile_sample_stride_height", tiling.tile_sample_stride_height);
    map.OptionalInteger("tile_sample_stride_width", tiling.tile_sample_stride_width);
    map.OptionalInteger("tile_sample_stride_num_frames", tiling.tile_sample_stride_num_frames);
    map.OptionalBool("framewise", tiling.framewise);
    if (node.IsDefined() && node.IsMap()) out = tiling;
  });
}

// The components that the texts name; taken as known, so that only values are found fault with.
std::vector<std::string> NamedComponents(const engine::Plan& plan) {
  std::vector<std::string> names;
  for (const auto* text :
       {&plan.offload, &plan.weights_home, &plan.storage_dtype, &plan.quantize}) {
    for (const std::string& piece :
         std::vector<std::string>(absl::StrSplit(text->value_or(""), ','))) {
      if (absl::StrContains(piece, '=')) names.push_back(piece.substr(0, piece.find('=')));
    }
  }
  return names;
}

}  // namespace

void ReadPlan(MapReader& model, engine::Plan& plan) {
  model.Map("plan", [&plan](MapReader& map) {
    Text(map, "mode", plan.mode);
    Text(map, "offload", plan.offload);
    Text(map, "weights_home", plan.weights_home);
    map.OptionalInteger("prefetch", plan.prefetch);
    Text(map, "storage_dtype", plan.storage_dtype);
    Text(map, "quantize", plan.quantize);
    map.Strings("quantize_skip", plan.quantize_skip);
    map.OptionalNumber("llm_int8_threshold", plan.llm_int8_threshold);
    map.OptionalInteger("chunk_feed_forward", plan.chunk_feed_forward);
    ReadTiling(map, plan.vae_tiling);
    Limit(map, "max_device_memory", plan.max_device_memory);
    Limit(map, "max_host_memory", plan.max_host_memory);
    std::vector<engine::FieldViolation> violations;
    engine::CheckWeightPlan(plan, NamedComponents(plan), violations);
    for (const engine::FieldViolation& violation : violations) {
      const std::string key = violation.field.substr(std::string("plan.").size());
      map.ErrorAt(map.Take(key), absl::StrCat("'", violation.field, "': ", violation.description));
    }
  });
}

}  // namespace kino::config
