#include "engine/describe/weight_plan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"
#include "engine/describe/component_values.h"

namespace kino::engine {
namespace {

constexpr int kMaxPrefetch = 8;

constexpr std::array<std::pair<QuantScheme, const char*>, 15> kSchemes = {{
    {QuantScheme::kNone, "none"},
    {QuantScheme::kNf4, "nf4"},
    {QuantScheme::kNf4Dq, "nf4_dq"},
    {QuantScheme::kFp4, "fp4"},
    {QuantScheme::kFp4Dq, "fp4_dq"},
    {QuantScheme::kInt8, "int8"},
    {QuantScheme::kInt8Wo, "int8wo"},
    {QuantScheme::kInt8Dyn, "int8dyn"},
    {QuantScheme::kFp8Wo, "fp8wo"},
    {QuantScheme::kFp8Dyn, "fp8dyn"},
    {QuantScheme::kQ8_0, "q8_0"},
    {QuantScheme::kQ4_0, "q4_0"},
    {QuantScheme::kQ4_1, "q4_1"},
    {QuantScheme::kQ5_0, "q5_0"},
    {QuantScheme::kQ5_1, "q5_1"},
}};

constexpr std::array<std::pair<WeightsHome, const char*>, 3> kHomes = {{
    {WeightsHome::kFile, "file"},
    {WeightsHome::kPageable, "pageable"},
    {WeightsHome::kPinned, "pinned"},
}};

// "float8_e4m3fn" as DType; nothing for "none".
absl::StatusOr<std::optional<DType>> ParseStorageDType(std::string_view text) {
  if (text == "none") return std::optional<DType>();
  if (text == "float8_e4m3fn") return std::optional<DType>(DType::kF8E4M3);
  if (text == "float8_e5m2") return std::optional<DType>(DType::kF8E5M2);
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(text), "', expected 'float8_e4m3fn', 'float8_e5m2' or 'none'"));
}

absl::Status InField(const char* field, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("plan.", field, ": ", std::string(status.message())));
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<ResidencyPolicy> ResidencyPolicy::Parse(std::string_view text) {
  ResidencyPolicy policy;
  if (text.empty() || text == "none") return policy;
  if (text == "model") {
    policy.unit = Unit::kComponent;
    return policy;
  }
  if (text == "leaf" || text == "sequential") {
    policy.unit = Unit::kLeaf;
    policy.prefetch = text == "leaf" ? 1 : 0;
    return policy;
  }
  constexpr std::string_view kBlock = "block:";
  if (text.starts_with(kBlock)) {
    policy.unit = Unit::kBlocks;
    const char* begin = text.data() + kBlock.size();
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, policy.blocks_per_group);
    if (error == std::errc() && stop == end && policy.blocks_per_group >= 1) return policy;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(text),
                   "', expected 'none', 'model', 'sequential', 'leaf' or 'block:N' with N from 1"));
}

std::string ResidencyPolicy::ToString() const {
  switch (unit) {
    case Unit::kResident:
      return "none";
    case Unit::kComponent:
      return "model";
    case Unit::kBlocks:
      return absl::StrCat("block:", blocks_per_group);
    case Unit::kLeaf:
      return prefetch == 0 ? "sequential" : "leaf";
  }
  return "none";
}

absl::StatusOr<WeightsHome> ParseWeightsHome(std::string_view text) {
  for (const auto& [home, name] : kHomes) {
    if (text == name) return home;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(text), "', expected 'file', 'pageable' or 'pinned'"));
}

const char* WeightsHomeName(WeightsHome home) {
  for (const auto& [known, name] : kHomes) {
    if (known == home) return name;
  }
  return "unknown";
}

absl::StatusOr<QuantScheme> ParseQuantScheme(std::string_view text) {
  for (const auto& [scheme, name] : kSchemes) {
    if (text == name) return scheme;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", std::string(text), "', expected one of ",
                   absl::StrJoin(kSchemes, ", ", [](std::string* out, const auto& scheme) {
                     absl::StrAppend(out, scheme.second);
                   })));
}

const char* QuantSchemeName(QuantScheme scheme) {
  for (const auto& [known, name] : kSchemes) {
    if (known == scheme) return name;
  }
  return "unknown";
}

std::string WeightPlan::FormatKey() const {
  std::string key = QuantSchemeName(quantize);
  if (quantize == QuantScheme::kInt8) absl::StrAppend(&key, "@", int8_threshold);
  if (quantize != QuantScheme::kNone && !quantize_skip.empty()) {
    absl::StrAppend(&key, "-", absl::StrJoin(quantize_skip, ","));
  }
  if (storage_dtype) absl::StrAppend(&key, "+", DTypeName(*storage_dtype));
  return key;
}

absl::StatusOr<WeightPlan> WeightPlanOf(const Plan& plan, std::string_view name,
                                        bool is_autoencoder) {
  WeightPlan out;
  auto offload = ValueFor(plan.offload, name, /*whole_too=*/true);
  if (!offload.ok()) return InField("offload", offload.status());
  auto residency = ResidencyPolicy::Parse(*offload);
  if (!residency.ok()) return InField("offload", residency.status());
  out.residency = *residency;
  // "sequential" is "leaf" without prefetch, whatever else is said.
  if (plan.prefetch && *offload != "sequential") out.residency.prefetch = *plan.prefetch;

  auto home = ValueFor(plan.weights_home, name, true);
  if (!home.ok()) return InField("weights_home", home.status());
  if (!home->empty()) {
    auto parsed = ParseWeightsHome(*home);
    if (!parsed.ok()) return InField("weights_home", parsed.status());
    out.home = *parsed;
  }
  auto quantize = ValueFor(plan.quantize, name, !is_autoencoder);
  if (!quantize.ok()) return InField("quantize", quantize.status());
  if (!quantize->empty()) {
    auto parsed = ParseQuantScheme(*quantize);
    if (!parsed.ok()) return InField("quantize", parsed.status());
    out.quantize = *parsed;
  }
  auto storage = ValueFor(plan.storage_dtype, name, !is_autoencoder);
  if (!storage.ok()) return InField("storage_dtype", storage.status());
  if (!storage->empty()) {
    auto parsed = ParseStorageDType(*storage);
    if (!parsed.ok()) return InField("storage_dtype", parsed.status());
    out.storage_dtype = *parsed;
  }
  if (plan.llm_int8_threshold) out.int8_threshold = *plan.llm_int8_threshold;
  out.quantize_skip = plan.quantize_skip;
  return out;
}

void CheckWeightPlan(const Plan& plan, const std::vector<std::string>& components,
                     std::vector<FieldViolation>& violations) {
  const auto check = [&](const char* field, const std::optional<std::string>& text,
                         const auto& parse) {
    if (!text) return;
    for (const std::string& problem : ProblemsOf(*text, components, parse))
      violations.push_back({.field = absl::StrCat("plan.", field), .description = problem});
  };
  check("offload", plan.offload,
        [](const std::string& value) { return ResidencyPolicy::Parse(value).status(); });
  check("weights_home", plan.weights_home,
        [](const std::string& value) { return ParseWeightsHome(value).status(); });
  check("storage_dtype", plan.storage_dtype,
        [](const std::string& value) { return ParseStorageDType(value).status(); });
  check("quantize", plan.quantize,
        [](const std::string& value) { return ParseQuantScheme(value).status(); });
  const auto fail = [&](const char* field, const std::string& description) {
    violations.push_back({.field = absl::StrCat("plan.", field), .description = description});
  };
  if (plan.mode && *plan.mode != "auto" && *plan.mode != "fastest" && *plan.mode != "smallest") {
    fail("mode", absl::StrCat("'", *plan.mode, "', expected 'auto', 'fastest' or 'smallest'"));
  }
  if (plan.prefetch && (*plan.prefetch < 0 || *plan.prefetch > kMaxPrefetch)) {
    fail("prefetch", absl::StrCat("expected 0 to ", kMaxPrefetch, ", got ", *plan.prefetch));
  }
  if (plan.chunk_feed_forward && *plan.chunk_feed_forward < 1) {
    fail("chunk_feed_forward",
         absl::StrCat("expected 1 token or more at a time, got ", *plan.chunk_feed_forward));
  }
  if (plan.llm_int8_threshold && !(*plan.llm_int8_threshold >= 0)) {
    fail("llm_int8_threshold", absl::StrCat("expected 0 or more, got ", *plan.llm_int8_threshold));
  }
  for (const auto& [field, bytes] : {std::pair{"max_device_memory", plan.max_device_memory},
                                     std::pair{"max_host_memory", plan.max_host_memory}}) {
    if (bytes && *bytes < 1) fail(field, absl::StrCat("expected bytes from 1, got ", *bytes));
  }
}

Plan MergePlans(const Plan& base, const Plan& over) {
  Plan plan = base;
  const auto take = [](auto& field, const auto& from) {
    if (from) field = from;
  };
  take(plan.mode, over.mode);
  take(plan.vae_tiling, over.vae_tiling);
  take(plan.offload, over.offload);
  take(plan.weights_home, over.weights_home);
  take(plan.prefetch, over.prefetch);
  take(plan.storage_dtype, over.storage_dtype);
  take(plan.quantize, over.quantize);
  if (!over.quantize_skip.empty()) plan.quantize_skip = over.quantize_skip;
  take(plan.llm_int8_threshold, over.llm_int8_threshold);
  take(plan.chunk_feed_forward, over.chunk_feed_forward);
  take(plan.max_device_memory, over.max_device_memory);
  take(plan.max_host_memory, over.max_host_memory);
  return plan;
}

int64_t QuantizedBytes(QuantScheme scheme, int64_t rows, int64_t columns, DType compute) {
  constexpr int64_t kFloat = 4;
  constexpr int64_t kBlock = 64;         // bitsandbytes' block
  constexpr int64_t kNestedBlock = 256;  // of its double quantization
  const int64_t elements = rows * columns;
  switch (scheme) {
    case QuantScheme::kNone:
      return elements * DTypeSize(compute);
    case QuantScheme::kNf4:
    case QuantScheme::kFp4:
      return CeilDiv(elements, 2) + CeilDiv(elements, kBlock) * kFloat;
    case QuantScheme::kNf4Dq:
    case QuantScheme::kFp4Dq: {
      const int64_t scales = CeilDiv(elements, kBlock);
      // Packed values, 8-bit scales, their scales, their code book of 256 and their offset.
      return CeilDiv(elements, 2) + scales + CeilDiv(scales, kNestedBlock) * kFloat +
             kNestedBlock * kFloat + kFloat;
    }
    case QuantScheme::kInt8:
    case QuantScheme::kInt8Wo:
    case QuantScheme::kInt8Dyn:
    case QuantScheme::kFp8Wo:
    case QuantScheme::kFp8Dyn:
      return elements + rows * kFloat;
    case QuantScheme::kQ8_0:
      return elements / 32 * 34;
    case QuantScheme::kQ4_0:
      return elements / 32 * 18;
    case QuantScheme::kQ4_1:
      return elements / 32 * 20;
    case QuantScheme::kQ5_0:
      return elements / 32 * 22;
    case QuantScheme::kQ5_1:
      return elements / 32 * 24;
  }
  return elements * DTypeSize(compute);
}

bool CanQuantize(QuantScheme scheme, int64_t rows, int64_t columns) {
  if (rows < 1 || columns < 1) return false;
  switch (scheme) {
    case QuantScheme::kQ8_0:
    case QuantScheme::kQ4_0:
    case QuantScheme::kQ4_1:
    case QuantScheme::kQ5_0:
    case QuantScheme::kQ5_1:
      return columns % 32 == 0;
    case QuantScheme::kFp8Dyn:
      // As torchao has it: what float8 matrix products take.
      return rows % 16 == 0 && columns % 16 == 0;
    default:
      return true;
  }
}

}  // namespace kino::engine
