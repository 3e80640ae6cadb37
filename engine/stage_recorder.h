// Seconds and peak memory of the stages of a run, as they go by. One thread; the peaks are the
// process's, so one object measures at a time.
#pragma once

#include <c10/core/Device.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/device.h"
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
  explicit StageRecorder(c10::Device device) : device_(device) {}

  // Memory of `body` is counted from here on for `stage`.
  template <typename Body>
  absl::Status Measure(Stage stage, const Body& body) {
    ResetDevicePeak(device_);
    ResetHostMemoryPeak();
    ResetDeviceWeightPeak();
    const Clock::time_point start = Clock::now();
    const absl::Status status = body();
    StageStats& stats = Of(stage);
    stats.seconds += SecondsSince(start);
    stats.peak_device_bytes = std::max(stats.peak_device_bytes, DevicePeakBytes(device_));
    stats.peak_host_bytes = std::max(stats.peak_host_bytes, HostMemoryCount().peak_bytes);
    stats.peak_weight_bytes = std::max(stats.peak_weight_bytes, DeviceWeightCount().peak_bytes);
    return status;
  }
  // Moves time that was spent on `stage` inside another one.
  void Move(Stage from, Stage to, double seconds) {
    Of(from).seconds -= seconds;
    Of(to).seconds += seconds;
  }
  const std::vector<StageStats>& stages() const { return stages_; }

 private:
  StageStats& Of(Stage stage) {
    for (StageStats& stats : stages_) {
      if (stats.stage == stage) return stats;
    }
    stages_.push_back({.stage = stage});
    return stages_.back();
  }

  c10::Device device_;
  std::vector<StageStats> stages_;
};

}  // namespace kino::engine
