// Element types of checkpoints (safetensors names) and of computation. Values only; no torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kino::engine {

enum class DType {
  kBool,
  kU8,
  kI8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kF8E4M3,
  kF8E5M2,
  kF16,
  kBF16,
  kF32,
  kF64
};

// Bytes of one element.
int64_t DTypeSize(DType dtype);
// "BF16", as safetensors spells it.
const char* DTypeName(DType dtype);
// Nothing for an unknown name.
std::optional<DType> DTypeFromName(std::string_view name);

}  // namespace kino::engine
