#include "engine/step_times.h"

#include <gtest/gtest.h>

namespace kino::engine {
namespace {

TEST(StepTimesTest, TheMedianOfTheStagesLatestSteps) {
  StepTimes times;
  EXPECT_EQ(times.Median(Stage::kDenoise), 0);
  times.Add(Stage::kDenoise, 60);  // the first one warms up
  EXPECT_EQ(times.Median(Stage::kDenoise), 60);
  times.Add(Stage::kDenoise, 2);
  EXPECT_EQ(times.Median(Stage::kDenoise), 2);
  times.Add(Stage::kDenoise, 3);
  EXPECT_EQ(times.Median(Stage::kDenoise), 3);
  times.Add(Stage::kDecode, 9);
  EXPECT_EQ(times.Median(Stage::kDenoise), 3);
  EXPECT_EQ(times.Median(Stage::kDecode), 9);
  EXPECT_EQ(times.Median(Stage::kEncodeText), 0);
}

TEST(StepTimesTest, AStageThatSlowsDownIsFollowed) {
  StepTimes times;
  for (int i = 0; i < 100; ++i) times.Add(Stage::kDecode, 1);
  for (int i = 0; i < 8; ++i) times.Add(Stage::kDecode, 5);
  EXPECT_EQ(times.Median(Stage::kDecode), 5);
}

}  // namespace
}  // namespace kino::engine
