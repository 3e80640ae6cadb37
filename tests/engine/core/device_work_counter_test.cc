#include "engine/core/device_work_counter.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <thread>

namespace kino::engine {
namespace {

// A device that does so many units of what it is asked for as a test lets it, and tells which
// thread looked.
class SlowDevice {
 public:
  struct Mark : TimeMark {
    explicit Mark(int behind) : units(behind) {}
    const int units;
  };

  std::unique_ptr<DeviceClock> MakeClock() { return std::make_unique<SlowClock>(*this); }
  void Do(int units) {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ += units;
  }
  // The driver lets nobody through.
  void Block(bool blocked) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocked_ = blocked;
    changed_.notify_all();
  }
  // Until somebody is held up by that.
  void AwaitBlocked() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return waiting_ > 0; });
  }
  int looks() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return looks_;
  }
  int marks() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return marks_;
  }

 private:
  class SlowClock final : public DeviceClock {
   public:
    explicit SlowClock(SlowDevice& device) : device_(device) {}
    std::shared_ptr<const TimeMark> Mark() override {
      const std::lock_guard<std::mutex> lock(device_.mutex_);
      return std::make_shared<SlowDevice::Mark>(++device_.marks_);
    }
    std::optional<double> Between(const TimeMark&, const TimeMark&, bool) override { return 0; }
    bool Reached(const TimeMark& mark) override {
      std::unique_lock<std::mutex> lock(device_.mutex_);
      ++device_.looks_;
      ++device_.waiting_;
      device_.changed_.notify_all();
      device_.changed_.wait(lock, [this] { return !device_.blocked_; });
      --device_.waiting_;
      return dynamic_cast<const SlowDevice::Mark&>(mark).units <= device_.done_;
    }

   private:
    SlowDevice& device_;
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  int marks_ = 0, done_ = 0, waiting_ = 0, looks_ = 0;
  bool blocked_ = false;
};

void AwaitDone(const WorkCounter& counter, uint64_t units) {
  for (int i = 0; i < 20000 && counter.done() != units; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(counter.done(), units);
}

TEST(DeviceWorkCounterTest, UnitsCountOnceTheDeviceHasDoneThem) {
  SlowDevice device;
  DeviceWorkCounter counter(device.MakeClock());
  for (int i = 0; i < 10; ++i) counter.Count();
  EXPECT_EQ(counter.done(), 0u) << "they are asked for, no more";
  device.Do(3);
  AwaitDone(counter, 3);
  device.Do(1);
  AwaitDone(counter, 4);
  counter.Count();
  device.Do(7);
  AwaitDone(counter, 11);
}

TEST(DeviceWorkCounterTest, MarksBeyondTheBoundLoseNoUnit) {
  SlowDevice device;
  DeviceWorkCounter counter(device.MakeClock(), /*most_marks=*/3);
  for (int i = 0; i < 10; ++i) counter.Count();
  EXPECT_EQ(device.marks(), 10);
  device.Do(2);
  AwaitDone(counter, 2);
  device.Do(8);
  AwaitDone(counter, 10);
}

TEST(DeviceWorkCounterTest, AMarkThatMovesOnWhileItIsLookedAtIsLookedAtAgain) {
  SlowDevice device;
  DeviceWorkCounter counter(device.MakeClock(), /*most_marks=*/1);
  device.Block(true);
  counter.Count();
  device.AwaitBlocked();
  counter.Count();
  device.Do(1);
  const int looks = device.looks();
  device.Block(false);
  for (int i = 0; i < 20000 && device.looks() == looks && counter.done() == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(counter.done(), 0u) << "of the two one is done, and that one has no mark any more";
  device.Do(1);
  AwaitDone(counter, 2);
}

TEST(DeviceWorkCounterTest, ADriverThatLetsNobodyThroughHoldsUpNeitherReaderNorComputation) {
  SlowDevice device;
  DeviceWorkCounter counter(device.MakeClock());
  device.Block(true);
  counter.Count();
  device.AwaitBlocked();
  // Both return although the device answers nothing.
  counter.Count();
  EXPECT_EQ(counter.done(), 0u);
  device.Do(2);
  device.Block(false);
  AwaitDone(counter, 2);
}

TEST(DeviceWorkCounterTest, ItsEndWaitsForNoWork) {
  SlowDevice device;
  DeviceWorkCounter counter(device.MakeClock());
  for (int i = 0; i < 3; ++i) counter.Count();
}

TEST(DeviceWorkCounterTest, TheHostsWorkIsDoneWhenItIsCounted) {
  const auto counter = MakeWorkCounter(c10::Device(c10::DeviceType::CPU));
  counter->Count();
  counter->Count();
  EXPECT_EQ(counter->done(), 2u);
}

}  // namespace
}  // namespace kino::engine
