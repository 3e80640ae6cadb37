// What a model's components compute in. Values only, no torch; thread-safe.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/dtype.h"

namespace kino::engine {

// What ComputeDTypes::Parse reads, to tell who wrote something else.
inline constexpr char kComputeDTypesForm[] =
    "auto, float32, float16 or bfloat16, also of single components (bfloat16,vae=float32)";

class ComputeDTypes {
 public:
  // "auto" for every component: float32 on the CPU, bfloat16 on a GPU.
  ComputeDTypes() = default;
  // One for every component.
  ComputeDTypes(DType dtype) : whole_(dtype) {}  // NOLINT(google-explicit-constructor)

  // In the forms of component_values.h. INVALID_ARGUMENT: it is not kComputeDTypesForm.
  static absl::StatusOr<ComputeDTypes> Parse(std::string_view text);
  // INVALID_ARGUMENT: it names a component that is none of `components`, or a type that nothing is
  // computed in.
  absl::Status Check(const std::vector<std::string>& components) const;

  // With "auto" settled for such a device.
  ComputeDTypes On(bool is_gpu) const;
  // "auto" that On has not settled is the CPU's.
  DType Of(std::string_view component) const;

  // As Parse reads it.
  std::string ToString() const;
  bool operator==(const ComputeDTypes&) const = default;

 private:
  std::optional<DType> whole_;
  std::map<std::string, std::optional<DType>, std::less<>> named_;
};

// "float32", "float16", "bfloat16"; as safetensors spells it what nothing is computed in.
const char* ComputeDTypeName(DType dtype);
// Nothing for another text.
std::optional<DType> ComputeDTypeFromName(std::string_view name);

}  // namespace kino::engine
