#include "engine/core/cpu_features.h"

#include <gtest/gtest.h>

namespace kino::engine {
namespace {

constexpr CpuFeatures kAll = {
    .avx = true, .avx512 = true, .int8 = true, .bfloat16 = true, .float16 = true, .amx = true};

int Count(const CpuFeatures& features) {
  return features.avx + features.avx512 + features.int8 + features.bfloat16 + features.float16 +
         features.amx;
}

TEST(CpuFeatures, OneDnnsLimitTakesAwayWhatIsAboveIt) {
  EXPECT_EQ(Count(LimitedTo(kAll, "")), 6);
  EXPECT_EQ(Count(LimitedTo(kAll, "ALL")), 6);
  EXPECT_EQ(Count(LimitedTo(kAll, "AVX512_CORE_AMX")), 6);
  EXPECT_FALSE(LimitedTo(kAll, "AVX512_CORE_FP16").amx);
  EXPECT_FALSE(LimitedTo(kAll, "AVX512_CORE_BF16").float16);
  EXPECT_TRUE(LimitedTo(kAll, "AVX512_CORE_BF16").bfloat16);
  EXPECT_FALSE(LimitedTo(kAll, "AVX512_CORE_VNNI").bfloat16);
  EXPECT_TRUE(LimitedTo(kAll, "AVX512_CORE_VNNI").int8);
  EXPECT_FALSE(LimitedTo(kAll, "AVX512_CORE").int8);
  EXPECT_TRUE(LimitedTo(kAll, "AVX512_CORE").avx512);
  EXPECT_EQ(Count(LimitedTo(kAll, "AVX2")), 1);
  EXPECT_TRUE(LimitedTo(kAll, "avx2").avx);
  EXPECT_EQ(Count(LimitedTo(kAll, "SSE41")), 0);
}

TEST(CpuFeatures, ALimitGivesNothing) { EXPECT_EQ(Count(LimitedTo({}, "ALL")), 0); }

}  // namespace
}  // namespace kino::engine
