#include "engine/describe/compute_dtypes.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"
#include "engine/describe/component_values.h"

namespace kino::engine {
namespace {

constexpr std::array<std::pair<DType, const char*>, 3> kNames = {
    {{DType::kF32, "float32"}, {DType::kF16, "float16"}, {DType::kBF16, "bfloat16"}}};

absl::StatusOr<std::optional<DType>> ParseOne(const std::string& text) {
  const std::optional<DType> dtype = ComputeDTypeFromName(text);
  if (dtype || text == "auto") return dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "', expected auto, float32, float16 or bfloat16"));
}

const char* NameOf(const std::optional<DType>& dtype) {
  return dtype ? ComputeDTypeName(*dtype) : "auto";
}

}  // namespace

const char* ComputeDTypeName(DType dtype) {
  for (const auto& [known, name] : kNames) {
    if (known == dtype) return name;
  }
  return DTypeName(dtype);
}

std::optional<DType> ComputeDTypeFromName(std::string_view name) {
  for (const auto& [dtype, known] : kNames) {
    if (name == known) return dtype;
  }
  return std::nullopt;
}

absl::StatusOr<ComputeDTypes> ComputeDTypes::Parse(std::string_view text) {
  KINO_ASSIGN_OR_RETURN(const std::vector<ComponentValue> values, SplitComponentValues(text));
  ComputeDTypes dtypes;
  for (const ComponentValue& one : values) {
    KINO_ASSIGN_OR_RETURN(const std::optional<DType> dtype, ParseOne(one.value));
    if (one.component.empty()) {
      dtypes.whole_ = dtype;
    } else {
      dtypes.named_[one.component] = dtype;
    }
  }
  return dtypes;
}

absl::Status ComputeDTypes::Check(const std::vector<std::string>& components) const {
  if (whole_) KINO_RETURN_IF_ERROR(ParseOne(NameOf(whole_)).status());
  const std::vector<std::string> problems =
      ProblemsOf(ToString(), components, [](const std::string&) { return absl::OkStatus(); });
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("dtype: ", problems.front()));
}

ComputeDTypes ComputeDTypes::On(bool is_gpu) const {
  const DType chosen = is_gpu ? DType::kBF16 : DType::kF32;
  ComputeDTypes settled = whole_.value_or(chosen);
  for (const auto& [component, dtype] : named_) settled.named_[component] = dtype.value_or(chosen);
  return settled;
}

DType ComputeDTypes::Of(std::string_view component) const {
  const auto named = named_.find(component);
  const std::optional<DType>& dtype = named == named_.end() ? whole_ : named->second;
  return dtype.value_or(DType::kF32);
}

std::string ComputeDTypes::ToString() const {
  std::string text = NameOf(whole_);
  for (const auto& [component, dtype] : named_)
    absl::StrAppend(&text, ",", component, "=", NameOf(dtype));
  return text;
}

}  // namespace kino::engine
