#include "engine/stage_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

namespace kino::engine {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A device that does its work when it is told to, and says what a mark is behind.
class LateClock final : public DeviceClock {
 public:
  struct At : TimeMark {
    explicit At(double after) : seconds(after) {}
    const double seconds;
  };
  std::shared_ptr<const TimeMark> Mark() override { return std::make_shared<At>(queued); }
  std::optional<double> Between(const TimeMark& begin, const TimeMark& end, bool wait) override {
    const double to = dynamic_cast<const At&>(end).seconds;
    if (to > done) {
      if (!wait) return std::nullopt;
      ++waits;
      done = to;
    }
    return to - dynamic_cast<const At&>(begin).seconds;
  }
  bool Reached(const TimeMark& mark) override {
    return dynamic_cast<const At&>(mark).seconds <= done;
  }

  double queued = 0;  // seconds of work that was asked for
  double done = 0;
  int waits = 0;
};

class StageRecorderTest : public ::testing::Test {
 protected:
  // Asks for work of so many seconds, and returns at once.
  void Step(Stage stage, double seconds) {
    const auto begin = recorder_.Mark();
    const absl::Status status = recorder_.Measure(stage, [&] {
      clock_->queued += seconds;
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok());
    recorder_.Since(begin, [this](double told) { steps_.push_back(told); });
  }

  LateClock* clock_ = new LateClock;
  StageRecorder recorder_{c10::Device(c10::DeviceType::CPU), std::unique_ptr<DeviceClock>(clock_)};
  std::vector<double> steps_;
};

TEST_F(StageRecorderTest, WorkThatIsDoneLaterCountsForTheStepThatAskedForIt) {
  Step(Stage::kEncodeText, 1);
  Step(Stage::kDenoise, 3);
  Step(Stage::kDenoise, 5);
  EXPECT_THAT(steps_, IsEmpty());
  clock_->done = 4;
  Step(Stage::kDecode, 7);
  EXPECT_THAT(steps_, ElementsAre(DoubleEq(1), DoubleEq(3)));
  EXPECT_EQ(clock_->waits, 0);
  recorder_.Move(Stage::kDecode, Stage::kMux, 2);
  recorder_.Finish();
  EXPECT_THAT(steps_, ElementsAre(DoubleEq(1), DoubleEq(3), DoubleEq(5), DoubleEq(7)));
  std::vector<std::pair<Stage, double>> stages;
  for (const StageStats& stage : recorder_.stages())
    stages.emplace_back(stage.stage, stage.seconds);
  EXPECT_EQ(
      stages,
      (std::vector<std::pair<Stage, double>>{
          {Stage::kEncodeText, 1}, {Stage::kDenoise, 8}, {Stage::kDecode, 5}, {Stage::kMux, 2}}));
}

// The CPU's clock: work is done when its call returns.
TEST(HostClockTest, SecondsAreToldAtOnce) {
  StageRecorder recorder{c10::Device(c10::DeviceType::CPU)};
  std::vector<double> told;
  recorder.Since(recorder.Mark(), [&](double seconds) { told.push_back(seconds); });
  ASSERT_EQ(told.size(), 1u);
  EXPECT_GE(told[0], 0);
}

}  // namespace
}  // namespace kino::engine
