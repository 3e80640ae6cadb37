// Config of a LLaMA as a text encoder (transformers 5.23 models/llama/configuration_llama.py), by
// itself or as the text_config of a LLaVA. Values only; no torch: the planner reads it as well.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// Rotary positions (transformers 5.23 modeling_rope_utils.py).
struct LlamaRope {
  enum class Scaling {
    kDefault,  // none
    kLinear,   // all frequencies are divided by `factor`
    kLlama3,   // those of long waves are; those between are in between
  };
  Scaling scaling = Scaling::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // kLlama3 alone, as the next
  int original_max_position_embeddings = 8192;
};

struct LlamaEncoderConfig {
  int vocab_size = 32000;
  int hidden_size = 4096;
  int intermediate_size = 11008;
  int num_hidden_layers = 32;
  int num_attention_heads = 32;
  int num_key_value_heads = 32;
  int head_dim = 128;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;
  bool mlp_bias = false;
  LlamaRope rope;
  // Of a LLaVA, the id in whose place image features stand; -1: of a LLaMA alone, which has none.
  int image_token_index = -1;
  // The last layers that are not run, as diffusers calls the argument: hidden_states[-(this + 1)].
  // "num_hidden_layers_to_skip" in the JSON, where no published file has it: a family that wants
  // another number sets it there.
  int num_hidden_layers_to_skip = 2;
  // Rows of q and k lie as llama.cpp permutes them: a pair of rotary numbers is two neighbours.
  // "permuted_rotary" in the JSON, which FindLlamaEncoder sets.
  bool permuted_rotary = false;

  int layers_run() const { return num_hidden_layers - num_hidden_layers_to_skip; }

  // Keys as transformers 4 writes them (rope_theta, rope_scaling) and as 5 does (rope_parameters).
  // `path` names the file in messages. UNIMPLEMENTED: another architecture, activation or kind of
  // rotary scaling. INVALID_ARGUMENT: a value that no such model has.
  static absl::StatusOr<LlamaEncoderConfig> FromJson(const nlohmann::json& json,
                                                     const std::string& path);
};

}  // namespace kino::engine
