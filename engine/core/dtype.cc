#include "engine/core/dtype.h"

#include <array>

namespace kino::engine {
namespace {

struct Row {
  DType dtype;
  const char* name;
  int64_t size;
};

// https://github.com/huggingface/safetensors#format: the names; F4, F6 and F8_E8M0 are packed types
// Kino has no use for.
constexpr std::array<Row, 15> kRows = {{{DType::kBool, "BOOL", 1},
                                        {DType::kU8, "U8", 1},
                                        {DType::kI8, "I8", 1},
                                        {DType::kI16, "I16", 2},
                                        {DType::kU16, "U16", 2},
                                        {DType::kI32, "I32", 4},
                                        {DType::kU32, "U32", 4},
                                        {DType::kI64, "I64", 8},
                                        {DType::kU64, "U64", 8},
                                        {DType::kF8E4M3, "F8_E4M3", 1},
                                        {DType::kF8E5M2, "F8_E5M2", 1},
                                        {DType::kF16, "F16", 2},
                                        {DType::kBF16, "BF16", 2},
                                        {DType::kF32, "F32", 4},
                                        {DType::kF64, "F64", 8}}};

}  // namespace

int64_t DTypeSize(DType dtype) { return kRows[static_cast<size_t>(dtype)].size; }
const char* DTypeName(DType dtype) { return kRows[static_cast<size_t>(dtype)].name; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const Row& row : kRows) {
    if (name == row.name) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace kino::engine
