// The GGUF block types that are decoded, for tests of each.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "engine/quant/gguf.h"

namespace kino::engine {

inline constexpr GgmlType kGgufTypes[] = {GgmlType::kQ4_0, GgmlType::kQ4_1,   GgmlType::kQ5_0,
                                          GgmlType::kQ5_1, GgmlType::kQ8_0,   GgmlType::kQ2_K,
                                          GgmlType::kQ3_K, GgmlType::kQ4_K,   GgmlType::kQ5_K,
                                          GgmlType::kQ6_K, GgmlType::kIQ4_NL, GgmlType::kIQ4_XS};

// Of a case of INSTANTIATE_TEST_SUITE_P.
inline std::string GgufTypeOf(const ::testing::TestParamInfo<GgmlType>& type) {
  return GgmlTypeName(type.param);
}

}  // namespace kino::engine
