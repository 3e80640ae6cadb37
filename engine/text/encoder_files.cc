#include "engine/text/encoder_files.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/file_shapes.h"
#include "engine/core/gguf.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr char kLlama[] = "LLaMA text encoder";
constexpr char kClip[] = "CLIP text encoder";

absl::Status HoldsNone(const TensorFile& file, const char* component) {
  return absl::NotFoundError(absl::StrCat("'", file.path(), "' holds no ", component));
}

// Names behind `prefix`; all others are another component's.
KeyMap Behind(const char* component, std::string prefix) {
  return {.name = component,
          .map = [prefix = std::move(prefix)](std::string_view original,
                                              const TensorEntry&) -> std::vector<MappedTensor> {
            if (!original.starts_with(prefix)) return {};
            return {{.name = std::string(original.substr(prefix.size()))}};
          }};
}

nlohmann::json OfFolder(const nlohmann::json* folder_config) {
  return folder_config == nullptr ? nlohmann::json::object() : *folder_config;
}

bool IsLlava(const nlohmann::json& config) {
  return config.contains("text_config") && config["text_config"].is_object();
}

// `text` in the place of the text model's config.
nlohmann::json WithText(nlohmann::json config, nlohmann::json text) {
  if (!IsLlava(config)) return text;
  config["text_config"] = std::move(text);
  return config;
}

absl::StatusOr<FoundComponent> FindLlamaByShapes(const TensorFile& file,
                                                 const nlohmann::json* folder_config) {
  constexpr int64_t kHead = 128;
  const std::optional<std::string> prefix =
      PrefixOf(file, {"embed_tokens.weight", "layers.0.self_attn.q_proj.weight"});
  if (!prefix) return HoldsNone(file, kLlama);
  FoundComponent found{.map = Behind(kLlama, *prefix), .config = OfFolder(folder_config)};
  FileShapes shapes(file, found.map);
  nlohmann::json text = IsLlava(found.config) ? found.config["text_config"] : found.config;
  if (folder_config == nullptr) {
    text = {{"model_type", "llama"},
            {"head_dim", kHead},
            {"num_attention_heads", shapes.Extent("layers.0.self_attn.q_proj.weight", 0) / kHead},
            {"num_key_value_heads", shapes.Extent("layers.0.self_attn.k_proj.weight", 0) / kHead},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 500000.0}};
  }
  text["vocab_size"] = shapes.Extent("embed_tokens.weight", 0);
  text["hidden_size"] = shapes.Extent("embed_tokens.weight", 1);
  text["intermediate_size"] = shapes.Extent("layers.0.mlp.gate_proj.weight", 0);
  text["num_hidden_layers"] = shapes.Count("layers.");
  KINO_RETURN_IF_ERROR(shapes.status());
  found.config = WithText(std::move(found.config), std::move(text));
  return found;
}

// llama.cpp's names (gguf-py, tensor_mapping.py).
const KeyRenames& GgufRenames() {
  static const KeyRenames renames = {{"blk.", "layers."},
                                     {".attn_norm.", ".input_layernorm."},
                                     {".ffn_norm.", ".post_attention_layernorm."},
                                     {".attn_q.", ".self_attn.q_proj."},
                                     {".attn_k.", ".self_attn.k_proj."},
                                     {".attn_v.", ".self_attn.v_proj."},
                                     {".attn_output.", ".self_attn.o_proj."},
                                     {".ffn_gate.", ".mlp.gate_proj."},
                                     {".ffn_up.", ".mlp.up_proj."},
                                     {".ffn_down.", ".mlp.down_proj."},
                                     {"token_embd.", "embed_tokens."},
                                     {"output_norm.", "norm."},
                                     {"output.", "lm_head."}};
  return renames;
}

// A value of the file's, or `fallback`.
template <typename Values, typename T>
T ValueOr(const Values& values, const std::string& key, T fallback) {
  const auto found = values.find(key);
  return found == values.end() ? fallback : static_cast<T>(found->second);
}

absl::Status CheckLlamaGguf(const GgufFile& file) {
  const auto architecture = file.metadata().find("general.architecture");
  if (architecture == file.metadata().end() || architecture->second != "llama") {
    return absl::UnimplementedError(absl::StrCat(
        "'", file.path(), "': architecture '",
        architecture == file.metadata().end() ? "" : architecture->second, "', expected 'llama'"));
  }
  const auto scaling = file.metadata().find("llama.rope.scaling.type");
  const bool is_scaled = scaling != file.metadata().end() && scaling->second != "none";
  if (is_scaled || file.tensors().contains("rope_freqs.weight")) {
    return absl::UnimplementedError(
        absl::StrCat("'", file.path(), "': ",
                     is_scaled ? absl::StrCat("llama.rope.scaling.type '", scaling->second, "'")
                               : "rotary frequency factors (rope_freqs.weight)",
                     ", expected LLaMA 3, which has no rotary scaling"));
  }
  return absl::OkStatus();
}

absl::StatusOr<FoundComponent> FindLlamaInGguf(const GgufFile& file,
                                               const nlohmann::json* folder_config) {
  KINO_RETURN_IF_ERROR(CheckLlamaGguf(file));
  FoundComponent found{.map = {.name = kLlama,
                               .map = [](std::string_view original,
                                         const TensorEntry&) -> std::vector<MappedTensor> {
                                 return {{.name = Rename(original, GgufRenames())}};
                               }},
                       .config = OfFolder(folder_config)};
  FileShapes shapes(file, found.map);
  const int64_t hidden = shapes.Extent("embed_tokens.weight", 1);
  const int64_t heads = ValueOr(file.integers(), "llama.attention.head_count", int64_t{0});
  const int64_t head =
      ValueOr(file.integers(), "llama.rope.dimension_count", hidden / std::max<int64_t>(heads, 1));
  nlohmann::json text = {
      {"model_type", "llama"},
      {"vocab_size", shapes.Extent("embed_tokens.weight", 0)},
      {"hidden_size", hidden},
      {"intermediate_size", shapes.Extent("layers.0.mlp.gate_proj.weight", 0)},
      {"num_hidden_layers", shapes.Count("layers.")},
      {"num_attention_heads", heads},
      {"num_key_value_heads", ValueOr(file.integers(), "llama.attention.head_count_kv", heads)},
      {"head_dim", head},
      {"rms_norm_eps", ValueOr(file.floats(), "llama.attention.layer_norm_rms_epsilon", 1e-5)},
      {"rope_theta", ValueOr(file.floats(), "llama.rope.freq_base", 10000.0)},
      // llama.cpp turns pairs of neighbours: convert_hf_to_gguf.py, LlamaModel.permute.
      {"permuted_rotary", true}};
  KINO_RETURN_IF_ERROR(shapes.status());
  found.config = WithText(std::move(found.config), std::move(text));
  return found;
}

}  // namespace

absl::StatusOr<FoundComponent> FindLlamaEncoder(const TensorFile& file,
                                                const nlohmann::json* folder_config) {
  if (const auto* gguf = dynamic_cast<const GgufFile*>(&file); gguf != nullptr)
    return FindLlamaInGguf(*gguf, folder_config);
  return FindLlamaByShapes(file, folder_config);
}

absl::StatusOr<FoundComponent> FindClipTextEncoder(const TensorFile& file,
                                                   const nlohmann::json* folder_config) {
  constexpr int64_t kHead = 64;
  const std::optional<std::string> prefix = PrefixOf(
      file, {"embeddings.token_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight"});
  if (!prefix) return HoldsNone(file, kClip);
  FoundComponent found{.map = Behind(kClip, *prefix), .config = OfFolder(folder_config)};
  FileShapes shapes(file, found.map);
  const int64_t hidden = shapes.Extent("embeddings.token_embedding.weight", 1);
  if (folder_config == nullptr) {
    found.config = {{"model_type", "clip_text_model"},
                    {"num_attention_heads", hidden / kHead},
                    {"hidden_act", "quick_gelu"},
                    {"eos_token_id", 2}};
  }
  found.config["vocab_size"] = shapes.Extent("embeddings.token_embedding.weight", 0);
  found.config["hidden_size"] = hidden;
  found.config["max_position_embeddings"] =
      shapes.Extent("embeddings.position_embedding.weight", 0);
  found.config["intermediate_size"] = shapes.Extent("encoder.layers.0.mlp.fc1.weight", 0);
  found.config["num_hidden_layers"] = shapes.Count("encoder.layers.");
  KINO_RETURN_IF_ERROR(shapes.status());
  return found;
}

}  // namespace kino::engine
