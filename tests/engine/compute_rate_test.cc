#include "engine/compute_rate.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kino::engine {
namespace {

TEST(ComputeRateTest, AStageHasItsOwnRateElseThatOfAll) {
  ComputeRate rate;
  EXPECT_FALSE(rate.Seconds(Stage::kDenoise, 10));
  EXPECT_EQ(rate.Seconds(Stage::kDenoise, 0), 0);
  rate.Add(Stage::kDenoise, 100, 10);
  rate.Add(Stage::kDenoise, 200, 20);
  EXPECT_DOUBLE_EQ(*rate.Seconds(Stage::kDenoise, 50), 5);
  EXPECT_DOUBLE_EQ(*rate.Seconds(Stage::kDecode, 50), 5);
  rate.Add(Stage::kDecode, 300, 10);
  EXPECT_DOUBLE_EQ(*rate.Seconds(Stage::kDecode, 60), 2);
  EXPECT_DOUBLE_EQ(*rate.Seconds(Stage::kDenoise, 50), 5);
  EXPECT_DOUBLE_EQ(*rate.Seconds(Stage::kEncodeMedia, 60), 4);
  for (const double nothing : {0.0, -1.0, std::nan("")}) {
    rate.Add(Stage::kDecode, nothing, 10);
    rate.Add(Stage::kDecode, 10, nothing);
  }
  EXPECT_DOUBLE_EQ(*rate.Seconds(Stage::kDecode, 60), 2);
}

TEST(ComputeRateTest, WhatIsOldIsForgotten) {
  ComputeRate rate;
  for (int i = 0; i < 100; ++i) rate.Add(Stage::kDenoise, 100, 100);
  for (int i = 0; i < 100; ++i) rate.Add(Stage::kDenoise, 200, 100);
  EXPECT_NEAR(*rate.Seconds(Stage::kDenoise, 200), 100, 1);
}

}  // namespace
}  // namespace kino::engine
