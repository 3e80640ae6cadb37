#include "engine/quant/bitsandbytes_checkpoint.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cmath>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/core/torch_types.h"
#include "engine/quant/bitsandbytes.h"

namespace kino::engine {
namespace {

constexpr int64_t kMaxStateBytes = 1 << 16;
constexpr int64_t kMaxSide = int64_t{1} << 31;
// How far a stored code may be from the one that is computed with.
constexpr float kCodeTolerance = 1e-5f;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::Status Bad(const TensorEntry& entry, const std::string& name, const std::string& expected) {
  return absl::InvalidArgumentError(absl::StrCat(entry.file, ": '", name, "' is ",
                                                 DTypeName(entry.dtype), " ",
                                                 ShapeText(entry.shape), ", expected ", expected));
}

absl::StatusOr<const TensorEntry*> Require(TensorLookup find, const TensorEntry& weight,
                                           const std::string& name) {
  const TensorEntry* const entry = find(name);
  if (entry != nullptr) return entry;
  return absl::InvalidArgumentError(absl::StrCat(
      weight.file, ": a weight serialized by bitsandbytes lacks its tensor '", name, "'"));
}

int64_t Elements(const TensorEntry& entry) { return entry.bytes / DTypeSize(entry.dtype); }

absl::Status CheckVector(const TensorEntry& entry, const std::string& name, DType dtype,
                         int64_t elements) {
  if (entry.dtype == dtype && Elements(entry) == elements) return absl::OkStatus();
  return Bad(entry, name, absl::StrCat(DTypeName(dtype), " of ", elements, " elements"));
}

// The entry's bytes as `shape` of `dtype`: a view, or a copy where the file has them misaligned.
at::Tensor View(const TensorEntry& entry, std::vector<int64_t> shape, c10::ScalarType dtype) {
  const auto address = reinterpret_cast<uintptr_t>(entry.data);
  if (address % c10::elementSize(dtype) == 0) {
    return at::from_blob(const_cast<std::byte*>(entry.data), shape, at::TensorOptions(dtype));
  }
  at::Tensor copy = at::empty(shape, at::TensorOptions(dtype));
  std::memcpy(copy.mutable_data_ptr(), entry.data, copy.nbytes());
  return copy;
}

// What the JSON bytes of `.quant_state.bitsandbytes__*` say.
struct QuantState {
  Bnb4BitLayout layout;
  std::vector<int64_t> shape;
  double nested_offset = 0;
};

absl::StatusOr<QuantState> ParseState(const TensorEntry& entry, const std::string& name,
                                      Bnb4BitType type) {
  if (entry.dtype != DType::kU8 || entry.bytes > kMaxStateBytes)
    return Bad(entry, name, absl::StrCat("JSON in at most ", kMaxStateBytes, " U8"));
  const auto* const text = reinterpret_cast<const char*>(entry.data);
  const nlohmann::json json = nlohmann::json::parse(text, text + entry.bytes, nullptr, false);
  const std::string where = absl::StrCat(entry.file, ": '", name, "'");
  if (!json.is_object())
    return absl::InvalidArgumentError(absl::StrCat(where, " holds no JSON object"));

  ConfigReader reader(json, where);
  QuantState state;
  state.layout.type = type;
  const int block = reader.Get("blocksize", 0);
  const std::vector<double> shape = reader.Get("shape", std::vector<double>());
  const std::string quant_type = reader.Get("quant_type", std::string());
  const int nested_block = reader.Get("nested_blocksize", 0);
  state.nested_offset = reader.Get("nested_offset", 0.0);
  const std::string nested_dtype = reader.Get("nested_dtype", std::string("float32"));
  KINO_RETURN_IF_ERROR(reader.status());

  const char* const expected_type = type == Bnb4BitType::kNf4 ? "nf4" : "fp4";
  if (quant_type != expected_type) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": quant_type is '", quant_type, "', expected '", expected_type, "'"));
  }
  if (block < 32 || block > 4096 || (block & (block - 1)) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": blocksize is ", block, ", expected a power of two from 32 to 4096"));
  }
  state.layout.block = block;
  for (const double side : shape) {
    if (!(side >= 1) || side > static_cast<double>(kMaxSide) || side != std::floor(side)) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": shape holds ", side, ", expected sizes from 1 to ", kMaxSide));
    }
    state.shape.push_back(static_cast<int64_t>(side));
  }
  if (state.shape.size() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": shape is ", ShapeText(state.shape), ", expected [out, in]"));
  }
  state.layout.nested = json.contains("nested_blocksize");
  if (state.layout.nested && (nested_block != kBnbNestedBlock || nested_dtype != "float32")) {
    return absl::UnimplementedError(absl::StrCat(
        where, ": scales nested in blocks of ", nested_block, " ", nested_dtype,
        "; Kino reads blocks of ", kBnbNestedBlock, " float32, as bitsandbytes computes with"));
  }
  if (state.layout.nested && !std::isfinite(state.nested_offset)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": nested_offset is not finite"));
  }
  return state;
}

// bitsandbytes computes with its own table, whatever is stored; a file with another would come out
// wrong without a word.
absl::Status CheckQuantMap(const TensorEntry& entry, const std::string& name, Bnb4BitType type) {
  KINO_RETURN_IF_ERROR(CheckVector(entry, name, DType::kF32, 16));
  const std::array<float, 16>& code = Bnb4BitCode(type);
  std::array<float, 16> stored;
  std::memcpy(stored.data(), entry.data, sizeof(stored));
  for (size_t i = 0; i < code.size(); ++i) {
    if (!(std::fabs(stored[i] - code[i]) <= kCodeTolerance)) {
      return absl::InvalidArgumentError(absl::StrCat(entry.file, ": '", name, "' has ", stored[i],
                                                     " for code ", i, ", expected ", code[i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<SerializedLinear>> Read4Bit(const std::string& name,
                                                         const TensorEntry& weight,
                                                         const TensorEntry& state_entry,
                                                         const std::string& state_name,
                                                         Bnb4BitType type, TensorLookup find) {
  const std::string prefix = absl::StrCat(name, ".weight.");
  KINO_ASSIGN_OR_RETURN(const QuantState state, ParseState(state_entry, state_name, type));
  SerializedLinear out;
  out.shape = state.shape;
  out.format = MakeBnb4Bit(state.layout);
  const std::vector<PartSpec> specs = out.format->Parts(out.shape);
  // Any dtype may be the container of the packed codes (bnb_4bit_quant_storage).
  if (weight.bytes != specs[0].shape[0]) {
    return Bad(weight, absl::StrCat(name, ".weight"),
               absl::StrCat(specs[0].shape[0], " bytes for a matrix ", ShapeText(out.shape)));
  }
  out.parts.push_back(View(weight, specs[0].shape, at::kByte));
  const auto take = [&](const char* suffix, DType dtype, const PartSpec& spec) -> absl::Status {
    const std::string full = absl::StrCat(prefix, suffix);
    KINO_ASSIGN_OR_RETURN(const TensorEntry* const entry, Require(find, weight, full));
    KINO_RETURN_IF_ERROR(CheckVector(*entry, full, dtype, spec.shape[0]));
    out.parts.push_back(View(*entry, spec.shape, spec.dtype));
    out.companions.push_back(full);
    return absl::OkStatus();
  };
  const std::string map_name = absl::StrCat(prefix, "quant_map");
  KINO_ASSIGN_OR_RETURN(const TensorEntry* const map, Require(find, weight, map_name));
  KINO_RETURN_IF_ERROR(CheckQuantMap(*map, map_name, type));
  out.companions = {state_name, map_name};
  KINO_RETURN_IF_ERROR(take("absmax", state.layout.nested ? DType::kU8 : DType::kF32, specs[1]));
  if (state.layout.nested) {
    KINO_RETURN_IF_ERROR(take("nested_absmax", DType::kF32, specs[2]));
    KINO_RETURN_IF_ERROR(take("nested_quant_map", DType::kF32, specs[3]));
    at::Tensor offset = at::empty({1}, at::kFloat);
    *offset.mutable_data_ptr<float>() = static_cast<float>(state.nested_offset);
    out.parts.push_back(std::move(offset));
  }
  return out;
}

absl::StatusOr<std::optional<SerializedLinear>> ReadInt8(const std::string& name,
                                                         const TensorEntry& weight,
                                                         TensorLookup find, double threshold) {
  const std::string scales_name = absl::StrCat(name, ".SCB");
  KINO_ASSIGN_OR_RETURN(const TensorEntry* const scales, Require(find, weight, scales_name));
  if (weight.dtype != DType::kI8 || weight.shape.size() != 2)
    return Bad(weight, absl::StrCat(name, ".weight"), "I8 [out, in]");
  KINO_RETURN_IF_ERROR(CheckVector(*scales, scales_name, DType::kF32, weight.shape[0]));
  SerializedLinear out;
  out.shape = weight.shape;
  out.companions = {scales_name};
  const std::string format_name = absl::StrCat(name, ".weight_format");
  if (const TensorEntry* const format = find(format_name)) {
    if (format->bytes < 1) return Bad(*format, format_name, "a number");
    if (std::to_integer<int>(format->data[0]) != 0) {
      return absl::UnimplementedError(absl::StrCat(format->file, ": '", format_name, "' is ",
                                                   std::to_integer<int>(format->data[0]),
                                                   ", expected 0 (weights by rows)"));
    }
    out.companions.push_back(format_name);
  }
  out.format = MakeBnbInt8(threshold);
  out.parts = {View(weight, weight.shape, at::kChar), View(*scales, {weight.shape[0]}, at::kFloat)};
  return out;
}

}  // namespace

absl::StatusOr<std::optional<BitsAndBytesConfig>> ReadBitsAndBytesConfig(
    const nlohmann::json& config, const std::string& where) {
  const auto found = config.find("quantization_config");
  if (found == config.end() || found->is_null()) return std::optional<BitsAndBytesConfig>();
  if (!found->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": quantization_config is no JSON object"));
  }
  ConfigReader reader(*found, absl::StrCat(where, ": quantization_config"));
  const bool in_8bit = reader.Get("load_in_8bit", false);
  const bool in_4bit = reader.Get("load_in_4bit", false);
  // Files of before the key existed say only what they load in.
  const std::string method =
      reader.Get("quant_method", std::string(in_8bit || in_4bit ? "bitsandbytes" : ""));
  BitsAndBytesConfig out;
  out.llm_int8_threshold = reader.Get("llm_int8_threshold", out.llm_int8_threshold);
  KINO_RETURN_IF_ERROR(reader.status());
  if (method != "bitsandbytes") {
    return absl::UnimplementedError(absl::StrCat(
        where, ": weights quantized with quant_method '", method,
        "'; Kino reads 'bitsandbytes' (and GGUF files), and quantizes plain checkpoints itself"));
  }
  if (!(out.llm_int8_threshold >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": llm_int8_threshold is ",
                                                   out.llm_int8_threshold, ", expected 0 or more"));
  }
  return std::optional<BitsAndBytesConfig>(out);
}

absl::StatusOr<std::optional<SerializedLinear>> ReadBitsAndBytesLinear(
    const std::string& name, TensorLookup find, const BitsAndBytesConfig& config) {
  const std::string weight_name = absl::StrCat(name, ".weight");
  const TensorEntry* const weight = find(weight_name);
  if (weight == nullptr || weight->block != GgmlType::kNone)
    return std::optional<SerializedLinear>();
  for (const auto& [type, suffix] :
       {std::pair{Bnb4BitType::kNf4, "nf4"}, std::pair{Bnb4BitType::kFp4, "fp4"}}) {
    const std::string state_name = absl::StrCat(weight_name, ".quant_state.bitsandbytes__", suffix);
    if (const TensorEntry* const state = find(state_name))
      return Read4Bit(name, *weight, *state, state_name, type, find);
  }
  if (weight->dtype == DType::kI8 || find(absl::StrCat(name, ".SCB")) != nullptr)
    return ReadInt8(name, *weight, find, config.llm_int8_threshold);
  if (find(absl::StrCat(weight_name, ".absmax")) != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(weight->file, ": '", weight_name, "' has .absmax beside it and no ",
                     ".quant_state.bitsandbytes__nf4 or __fp4 that would say what it is"));
  }
  return std::optional<SerializedLinear>();
}

}  // namespace kino::engine
