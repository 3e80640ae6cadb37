// Which devices are trusted. Three different jobs that end by crash, hang or accelerator error on
// one device within ten minutes are no coincidence: the device is taken out, and their crashes are
// the device's, not the jobs'. A check without any model lets it back in. One thread at a time.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/job.h"

namespace kino::scheduler {

struct BreakerOptions {
  int jobs = 3;  // different ones
  absl::Duration window = absl::Minutes(10);
  // Between checks of a device that is out; doubles with each that fails.
  absl::Duration min_pause = absl::Seconds(1);
  absl::Duration max_pause = absl::Seconds(60);
};

class DeviceHealth {
 public:
  // `clock` outlives this.
  DeviceHealth(const BreakerOptions& options, const Clock& clock)
      : options_(options), clock_(clock) {}

  // A job's attempt crashed on `device`. The attempts whose crashes are the device's: all of the
  // window where this one takes the device out, this one alone where it is out already, else none.
  std::vector<AttemptRef> Crashed(const std::string& device, const AttemptRef& ref);

  // It is out, whatever is known of it here; a check is due.
  void TakeOut(const std::string& device);
  bool IsOut(const std::string& device) const;
  std::vector<std::string> Out() const;

  // Whether an out device is to be checked now; then it is not until CheckFailed was called.
  bool TakeCheck(const std::string& device);
  // How long the check that is under way has taken; zero: none is.
  absl::Duration CheckTime(const std::string& device) const;
  void CheckFailed(const std::string& device);
  // It works: it is trusted again, and what it did before is forgotten.
  void CheckPassed(const std::string& device);

 private:
  struct Crash {
    absl::Duration time;  // monotonic
    AttemptRef ref;
  };
  struct Device {
    std::deque<Crash> crashes;  // of the window
    bool is_out = false;
    bool is_being_checked = false;
    absl::Duration next_check;
    absl::Duration check_begin;
    absl::Duration pause;
  };

  const BreakerOptions options_;
  const Clock& clock_;
  std::map<std::string, Device> devices_;
};

}  // namespace kino::scheduler
