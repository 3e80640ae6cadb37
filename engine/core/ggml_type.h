// Block types of GGUF files: a block is a run of elements of one row, stored together with its
// scales. Values only; no torch. Source: ggml's ggml_type and its block structs, as gguf 0.19's
// GGML_QUANT_SIZES lists them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kino::engine {

enum class GgmlType {
  kNone,  // no blocks: a plain dtype
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS
};

// Elements of one block (1 for kNone).
int64_t GgmlBlockElements(GgmlType type);
// Bytes of one block. REQUIRES: not kNone.
int64_t GgmlBlockBytes(GgmlType type);
// "Q4_K", as GGUF spells it; "none".
const char* GgmlTypeName(GgmlType type);
// Nothing for an unknown name, and for "none".
std::optional<GgmlType> GgmlTypeFromName(std::string_view name);

}  // namespace kino::engine
