#include "engine/core/ggml_type.h"

#include <array>
#include <cstddef>

namespace kino::engine {
namespace {

struct Row {
  GgmlType type;
  const char* name;
  int64_t elements;
  int64_t bytes;
};

// Bytes as the sums of their fields: half-precision scales, packed 6-bit scales, high bits, low
// bits.
constexpr std::array<Row, 13> kRows = {{{GgmlType::kNone, "none", 1, 0},
                                        {GgmlType::kQ4_0, "Q4_0", 32, 2 + 16},
                                        {GgmlType::kQ4_1, "Q4_1", 32, 2 + 2 + 16},
                                        {GgmlType::kQ5_0, "Q5_0", 32, 2 + 4 + 16},
                                        {GgmlType::kQ5_1, "Q5_1", 32, 2 + 2 + 4 + 16},
                                        {GgmlType::kQ8_0, "Q8_0", 32, 2 + 32},
                                        {GgmlType::kQ2_K, "Q2_K", 256, 16 + 64 + 2 + 2},
                                        {GgmlType::kQ3_K, "Q3_K", 256, 32 + 64 + 12 + 2},
                                        {GgmlType::kQ4_K, "Q4_K", 256, 2 + 2 + 12 + 128},
                                        {GgmlType::kQ5_K, "Q5_K", 256, 2 + 2 + 12 + 32 + 128},
                                        {GgmlType::kQ6_K, "Q6_K", 256, 128 + 64 + 16 + 2},
                                        {GgmlType::kIQ4_NL, "IQ4_NL", 32, 2 + 16},
                                        {GgmlType::kIQ4_XS, "IQ4_XS", 256, 2 + 2 + 4 + 128}}};

const Row& RowOf(GgmlType type) { return kRows[static_cast<size_t>(type)]; }

}  // namespace

int64_t GgmlBlockElements(GgmlType type) { return RowOf(type).elements; }
int64_t GgmlBlockBytes(GgmlType type) { return RowOf(type).bytes; }
const char* GgmlTypeName(GgmlType type) { return RowOf(type).name; }

std::optional<GgmlType> GgmlTypeFromName(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.type != GgmlType::kNone && name == row.name) return row.type;
  }
  return std::nullopt;
}

}  // namespace kino::engine
