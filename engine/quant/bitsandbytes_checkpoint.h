// Linear layers that a checkpoint holds as bitsandbytes serialized them (save_pretrained with a
// BitsAndBytesConfig). For a layer `name`:
//   4-bit: name.weight packed [ceil(n / 2), 1], and beside it name.weight.absmax, .quant_map,
//          .quant_state.bitsandbytes__nf4 (or __fp4; JSON bytes), with double quantization also
//          .nested_absmax, .nested_quant_map;
//   int8:  name.weight int8 [out, in], name.SCB float32 [out], name.weight_format (0: by rows).
// Everything in the file is checked before it is looked at. Thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "engine/core/tensor_entry.h"
#include "engine/quant/weight_format.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// config.json's quantization_config, as far as it matters here. How each layer is quantized the
// checkpoint's tensors say themselves.
struct BitsAndBytesConfig {
  // Outlier columns of int8 layers.
  double llm_int8_threshold = 6.0;
};

// Nothing when `config` has no quantization_config. UNIMPLEMENTED: one of another library.
// INVALID_ARGUMENT: malformed. `where` names the file in messages.
absl::StatusOr<std::optional<BitsAndBytesConfig>> ReadBitsAndBytesConfig(
    const nlohmann::json& config, const std::string& where);

struct SerializedLinear {
  std::shared_ptr<const WeightFormat> format;
  std::vector<int64_t> shape;  // [out, in]
  // Tensors of the checkpoint that belong to the weight, itself not among them.
  std::vector<std::string> companions;
  // What format->Decode takes. They view the mapped file as long as its reader lives; what is not
  // there as such (or not aligned) is a tensor of its own.
  std::vector<at::Tensor> parts;
};

// Nullptr for a name the checkpoint does not have.
using TensorLookup = absl::FunctionRef<const TensorEntry*(const std::string&)>;

// `name` is the layer's, without ".weight". Nothing when it has no weight, or a plain one.
// INVALID_ARGUMENT names the tensor, what was expected and what was got; UNIMPLEMENTED: a layout
// that bitsandbytes can write and Kino does not read.
absl::StatusOr<std::optional<SerializedLinear>> ReadBitsAndBytesLinear(
    const std::string& name, TensorLookup find, const BitsAndBytesConfig& config);

}  // namespace kino::engine
