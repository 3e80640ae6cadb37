// Seconds and peak memory of the stages of a run, as they go by. Seconds are the device's and so
// may be known only later (core/device_clock.h). One thread; the peaks are the process's, so one
// object measures at a time.
#pragma once

#include <c10/core/Device.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/device.h"
#include "engine/core/device_clock.h"
#include "engine/core/memory_counter.h"
#include "engine/engine.h"

namespace kino::engine {

using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// In the order the stages were entered.
class StageRecorder {
 public:
  explicit StageRecorder(c10::Device device) : StageRecorder(device, DeviceClock::Create(device)) {}
  StageRecorder(c10::Device device, std::unique_ptr<DeviceClock> clock)
      : device_(device), clock_(std::move(clock)) {}

  // Memory of `body` is counted from here on for `stage`.
  template <typename Body>
  absl::Status Measure(Stage stage, const Body& body) {
    ResetDevicePeak(device_);
    ResetHostMemoryPeak();
    ResetDeviceWeightPeak();
    const std::shared_ptr<const TimeMark> begin = Mark();
    const absl::Status status = body();
    // Before its seconds are known, so that the stages stay in order.
    StageStats& stats = Of(stage);
    stats.peak_device_bytes = std::max(stats.peak_device_bytes, DevicePeakBytes(device_));
    stats.peak_host_bytes = std::max(stats.peak_host_bytes, HostMemoryCount().peak_bytes);
    stats.peak_weight_bytes = std::max(stats.peak_weight_bytes, DeviceWeightCount().peak_bytes);
    Since(begin, [this, stage](double seconds) { Of(stage).seconds += seconds; });
    return status;
  }
  // Behind the device's work so far.
  std::shared_ptr<const TimeMark> Mark() { return clock_->Mark(); }
  // Calls `told` with the seconds from `begin` until now, at once or in a later call, in the order
  // of the calls.
  void Since(std::shared_ptr<const TimeMark> begin, std::function<void(double)> told) {
    pending_.push_back({std::move(begin), Mark(), std::move(told)});
    Settle(/*wait=*/false);
  }
  // Once the device has done all work so far every second is told.
  void Finish() { Settle(/*wait=*/true); }
  // Moves time that was spent on `stage` inside another one.
  void Move(Stage from, Stage to, double seconds) {
    Of(from).seconds -= seconds;
    Of(to).seconds += seconds;
  }
  const std::vector<StageStats>& stages() const { return stages_; }

 private:
  struct Pending {
    std::shared_ptr<const TimeMark> begin, end;
    std::function<void(double)> told;
  };

  void Settle(bool wait) {
    while (!pending_.empty()) {
      const std::optional<double> seconds =
          clock_->Between(*pending_.front().begin, *pending_.front().end, wait);
      if (!seconds) return;
      const Pending settled = std::move(pending_.front());
      pending_.pop_front();
      settled.told(*seconds);
    }
  }
  StageStats& Of(Stage stage) {
    for (StageStats& stats : stages_) {
      if (stats.stage == stage) return stats;
    }
    stages_.push_back({.stage = stage});
    return stages_.back();
  }

  c10::Device device_;
  std::unique_ptr<DeviceClock> clock_;
  std::deque<Pending> pending_;
  std::vector<StageStats> stages_;
};

}  // namespace kino::engine
