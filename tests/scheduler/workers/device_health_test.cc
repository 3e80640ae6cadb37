#include "scheduler/workers/device_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"

namespace kino::scheduler {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class DeviceHealthTest : public testing::Test {
 protected:
  static AttemptRef Ref(const std::string& job, int attempt = 1) {
    return {.job_id = job, .attempt = attempt, .token = "t"};
  }
  // Three jobs' crashes take it out.
  void TakeOut(const std::string& device = "gpu") {
    for (const char* job : {"x", "y", "z"}) health_.Crashed(device, Ref(job));
    ASSERT_TRUE(health_.IsOut(device));
  }

  FakeClock clock_;
  DeviceHealth health_{BreakerOptions(), clock_};
};

TEST_F(DeviceHealthTest, ThreeDifferentJobsTakeADeviceOutAndAllTheirCrashesAreItsOwn) {
  EXPECT_THAT(health_.Crashed("gpu", Ref("a", 1)), IsEmpty());
  EXPECT_THAT(health_.Crashed("gpu", Ref("a", 2)), IsEmpty()) << "one job is no device's fault";
  EXPECT_THAT(health_.Crashed("gpu", Ref("b")), IsEmpty());
  EXPECT_FALSE(health_.IsOut("gpu"));
  EXPECT_THAT(health_.Crashed("gpu", Ref("c")),
              ElementsAre(Ref("a", 1), Ref("a", 2), Ref("b"), Ref("c")));
  EXPECT_TRUE(health_.IsOut("gpu"));
  EXPECT_THAT(health_.Out(), ElementsAre("gpu"));
}

TEST_F(DeviceHealthTest, EachDeviceIsJudgedByItself) {
  health_.Crashed("gpu", Ref("a"));
  health_.Crashed("cpu", Ref("b"));
  EXPECT_THAT(health_.Crashed("gpu", Ref("c")), IsEmpty());
  EXPECT_THAT(health_.Out(), IsEmpty());
}

TEST_F(DeviceHealthTest, CrashesThatLieFurtherBackThanTheWindowDoNotCount) {
  health_.Crashed("gpu", Ref("a"));
  clock_.Advance(absl::Minutes(1));
  health_.Crashed("gpu", Ref("b"));
  clock_.Advance(absl::Minutes(9) + absl::Milliseconds(1));
  EXPECT_THAT(health_.Crashed("gpu", Ref("c")), IsEmpty()) << "the first was over ten minutes ago";
  EXPECT_THAT(health_.Crashed("gpu", Ref("d")), ElementsAre(Ref("b"), Ref("c"), Ref("d")));
}

TEST_F(DeviceHealthTest, WhatCrashesOnADeviceThatIsOutIsItsOwnToo) {
  TakeOut();
  EXPECT_THAT(health_.Crashed("gpu", Ref("late")), ElementsAre(Ref("late")));
}

TEST_F(DeviceHealthTest, ChecksComeOneAtATimeWithPausesThatDoubleUpToTheirLimit) {
  EXPECT_FALSE(health_.TakeCheck("gpu")) << "a device that is trusted";
  TakeOut();
  absl::Duration pause = absl::Seconds(1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(health_.TakeCheck("gpu"));
    clock_.Advance(pause - absl::Milliseconds(1));
    EXPECT_FALSE(health_.TakeCheck("gpu")) << i;
    clock_.Advance(absl::Milliseconds(1));
    EXPECT_TRUE(health_.TakeCheck("gpu")) << i;
    EXPECT_FALSE(health_.TakeCheck("gpu")) << "one is under way";
    health_.CheckFailed("gpu");
    pause = std::min(pause * 2, absl::Seconds(60));
  }
}

TEST_F(DeviceHealthTest, DeviceThatIsOutFromTheStartIsCheckedAtOnce) {
  health_.TakeOut("gpu");
  EXPECT_TRUE(health_.IsOut("gpu"));
  EXPECT_THAT(health_.Crashed("gpu", Ref("a")), ElementsAre(Ref("a")));
  EXPECT_TRUE(health_.TakeCheck("gpu"));
}

TEST_F(DeviceHealthTest, CheckTimeIsThatOfTheOneUnderWay) {
  health_.TakeOut("gpu");
  EXPECT_EQ(health_.CheckTime("gpu"), absl::ZeroDuration());
  EXPECT_EQ(health_.CheckTime("another"), absl::ZeroDuration());
  clock_.Advance(absl::Seconds(5));
  ASSERT_TRUE(health_.TakeCheck("gpu"));
  clock_.Advance(absl::Seconds(7));
  EXPECT_EQ(health_.CheckTime("gpu"), absl::Seconds(7));
  health_.CheckFailed("gpu");
  EXPECT_EQ(health_.CheckTime("gpu"), absl::ZeroDuration());
}

TEST_F(DeviceHealthTest, ADeviceThatPassesIsTrustedAndItsPastForgotten) {
  TakeOut();
  clock_.Advance(absl::Seconds(1));
  ASSERT_TRUE(health_.TakeCheck("gpu"));
  health_.CheckPassed("gpu");
  EXPECT_FALSE(health_.IsOut("gpu"));
  EXPECT_THAT(health_.Crashed("gpu", Ref("a")), IsEmpty());
  EXPECT_THAT(health_.Crashed("gpu", Ref("b")), IsEmpty());
  EXPECT_FALSE(health_.Crashed("gpu", Ref("c")).empty());
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(health_.TakeCheck("gpu")) << "with the first pause again";
}

}  // namespace
}  // namespace kino::scheduler
