// Time on the compute device. Work on a GPU is done after the call that asks for it has returned,
// so the host's clock would count a step's work for whatever the host waits in later. Marks in the
// device's work are read once they are reached; nothing waits for them before a run's end. One
// thread, but for Reached.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <optional>

namespace kino::engine {

// A point in the device's work.
class TimeMark {
 public:
  virtual ~TimeMark() = default;
};

class DeviceClock {
 public:
  virtual ~DeviceClock() = default;
  // Behind all work so far.
  virtual std::shared_ptr<const TimeMark> Mark() = 0;
  // Seconds from one mark of this clock to a later one; nothing while the device has not reached
  // it. `wait`: until it has. Where the device does not tell, it is the host's time.
  virtual std::optional<double> Between(const TimeMark& begin, const TimeMark& end, bool wait) = 0;
  // Whether the device has done all work before `mark`. Any thread, also while the clock's own
  // makes marks. False for good where the device has failed: its next use tells of that.
  virtual bool Reached(const TimeMark& mark) = 0;

  // CUDA's events, or on the CPU, where work is done when its call returns, the host's clock.
  static std::unique_ptr<DeviceClock> Create(c10::Device device);
};

}  // namespace kino::engine
