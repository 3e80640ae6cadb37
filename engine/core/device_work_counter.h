// Counts the work of a device that does it after the call that asks for it has returned. A mark in
// the device's work follows every unit; a thread of its own looks which marks the device has
// reached, so that neither the thread that computes nor a heartbeat ever waits for a device that
// hangs.
#pragma once

#include <c10/core/Device.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/core/device_clock.h"
#include "engine/core/work_counter.h"

namespace kino::engine {

// Counts for `device`: on the host at once, else with a DeviceWorkCounter.
std::unique_ptr<WorkCounter> MakeWorkCounter(c10::Device device);

class DeviceWorkCounter final : public WorkCounter {
 public:
  // Marks beyond `most_marks` are not made: the latest one moves on instead.
  explicit DeviceWorkCounter(std::unique_ptr<DeviceClock> clock, size_t most_marks = 256);
  // Waits for no work of the device.
  ~DeviceWorkCounter() override;
  DeviceWorkCounter(const DeviceWorkCounter&) = delete;
  DeviceWorkCounter& operator=(const DeviceWorkCounter&) = delete;

  void Count() override;
  uint64_t done() const override { return done_.load(std::memory_order_relaxed); }

 private:
  struct Pending {
    uint64_t units;  // that are done when the device reaches the mark
    std::shared_ptr<const TimeMark> mark;
  };
  void Loop();

  const std::unique_ptr<DeviceClock> clock_;
  const size_t most_marks_;
  uint64_t asked_ = 0;  // the computing thread's alone
  std::atomic<uint64_t> done_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Pending> pending_;  // guarded by mutex_
  bool stopping_ = false;        // guarded by mutex_
  std::thread thread_;           // last: it uses the others
};

}  // namespace kino::engine
