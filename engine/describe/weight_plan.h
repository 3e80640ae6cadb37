// How a model's weights are held while it runs, as configs, requests and command lines spell it:
// where they are and when (offload, home, prefetch), and in what form (storage dtype,
// quantization). engine/quant and engine/memory carry it out. Values only, no torch; thread-safe.
//
// Every text below has a value for each component, in the forms of component_values.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/dtype.h"
#include "engine/describe/request.h"

namespace kino::engine {

// Tokens that a layer with a quantized matrix takes at a time: bounds its int32 and float32
// workspace. On a GPU more for dynamic schemes, which need nothing of other tokens: enough to fill
// it, and most clips in one piece.
inline constexpr int64_t kInt8RowsPerChunk = 1024;
inline constexpr int64_t kGpuDynamicRowsPerChunk = 16384;
// Slabs of host memory that an engine keeps for weights on their way to a GPU, and their size.
inline constexpr int64_t kStagingSlabs = 2;
inline constexpr int64_t kStagingSlabBytes = int64_t{64} << 20;

// When weights are on the device.
struct ResidencyPolicy {
  enum class Unit {
    kResident,   // always ("none")
    kComponent,  // a component while a stage uses it ("model")
    kBlocks,     // N transformer blocks ("block:N")
    kLeaf,       // one layer ("leaf"; "sequential" without prefetch)
  };
  Unit unit = Unit::kResident;
  int blocks_per_group = 0;  // of kBlocks
  // Groups copied ahead of the one in use.
  int prefetch = 1;

  // "none" (or empty), "model", "sequential", "leaf" or "block:N", N from 1. INVALID_ARGUMENT names
  // what was got.
  static absl::StatusOr<ResidencyPolicy> Parse(std::string_view text);
  // As Parse reads it; the prefetch depth only shows in "sequential".
  std::string ToString() const;
  bool operator==(const ResidencyPolicy&) const = default;
};

// Where weights are while they are not on the device.
enum class WeightsHome {
  kFile,      // the mapped checkpoint; what is not in it as it is used lies in an unlinked file
  kPageable,  // host memory
  kPinned,    // page-locked host memory; needs a GPU
};
// "file", "pageable" or "pinned".
absl::StatusOr<WeightsHome> ParseWeightsHome(std::string_view text);
const char* WeightsHomeName(WeightsHome home);

// How the matrices of linear layers are stored.
enum class QuantScheme {
  kNone,
  kNf4,    // bitsandbytes 4-bit NormalFloat, blocks of 64
  kNf4Dq,  // the same with quantized block scales (bitsandbytes' double quantization)
  kFp4,    // bitsandbytes 4-bit float
  kFp4Dq,
  kInt8,     // bitsandbytes LLM.int8(): outlier columns in the compute dtype
  kInt8Wo,   // torchao int8 weight-only, one scale per row
  kInt8Dyn,  // torchao int8 weights, activations quantized per token
  kFp8Wo,    // torchao float8_e4m3fn weight-only, one scale per row
  kFp8Dyn,   // torchao float8_e4m3fn weights and activations, one scale per row
  kQ8_0,     // GGUF's
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
};
// "none", "nf4", "nf4_dq", ..., "q5_1". INVALID_ARGUMENT lists what there is.
absl::StatusOr<QuantScheme> ParseQuantScheme(std::string_view text);
const char* QuantSchemeName(QuantScheme scheme);

// How one component's weights are held.
struct WeightPlan {
  ResidencyPolicy residency;
  WeightsHome home = WeightsHome::kFile;
  QuantScheme quantize = QuantScheme::kNone;
  // diffusers' llm_int8_threshold, of kInt8.
  double int8_threshold = 6.0;
  // Linear layers whose name holds one of these are not quantized.
  std::vector<std::string> quantize_skip = {};
  // Layerwise casting: kF8E4M3 or kF8E5M2; absent: the compute dtype.
  std::optional<DType> storage_dtype = std::nullopt;

  bool lossless() const { return quantize == QuantScheme::kNone && !storage_dtype; }
  // What the stored bytes depend on: equal for equal ones. Without residency and home.
  std::string FormatKey() const;
  bool operator==(const WeightPlan&) const = default;
};

// The plan of component `name`. A value for the whole model reaches the VAE (`is_autoencoder`) only
// as far as it is lossless: its lossy options are given by name. INVALID_ARGUMENT: a text that does
// not parse, with the field's name in front.
absl::StatusOr<WeightPlan> WeightPlanOf(const Plan& plan, std::string_view name,
                                        bool is_autoencoder);

// Appends what does not parse, or names a component that is none of `components`.
void CheckWeightPlan(const Plan& plan, const std::vector<std::string>& components,
                     std::vector<FieldViolation>& violations);

// The fields that `over` sets replace those of `base`.
Plan MergePlans(const Plan& base, const Plan& over);

// Bytes of a [rows, columns] matrix held in `scheme`, with its scales. `compute` is the dtype of
// computation. Matches what engine/quant allocates.
int64_t QuantizedBytes(QuantScheme scheme, int64_t rows, int64_t columns, DType compute);
// Whether the scheme can hold a matrix of such sizes: GGUF's blocks divide the columns, and 16 both
// sizes of fp8dyn, which torchao leaves alone otherwise.
bool CanQuantize(QuantScheme scheme, int64_t rows, int64_t columns);

}  // namespace kino::engine
