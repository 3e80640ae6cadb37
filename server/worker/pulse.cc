#include "server/worker/pulse.h"

#include "server/convert/job.h"

namespace kino::worker {
namespace {

void SetFrom(v1::AttemptPulse& to, const engine::RunPulse& from) {
  to.set_stage(convert::FromEngine(from.stage));
  to.set_steps(from.steps);
  to.set_step_seconds(from.step_seconds);
}

}  // namespace

void Pulse::Enter(v1::Stage stage) {
  absl::MutexLock lock(&mutex_);
  latest_.Clear();
  latest_.set_stage(stage);
}

void Pulse::RunBegins(const engine::Run* run) {
  absl::MutexLock lock(&mutex_);
  run_ = run;
}

void Pulse::RunEnds() {
  absl::MutexLock lock(&mutex_);
  const engine::RunPulse last = run_->pulse();
  SetFrom(latest_, last);
  // Keeps the sum from falling.
  counted_ += static_cast<int64_t>(last.counter);
  run_ = nullptr;
}

int64_t Pulse::counter() const { return Read().counter(); }

v1::AttemptPulse Pulse::Read() const {
  absl::MutexLock lock(&mutex_);
  v1::AttemptPulse pulse = latest_;
  int64_t counter = counted_ + static_cast<int64_t>(work_.done());
  if (run_ != nullptr) {
    const engine::RunPulse now = run_->pulse();
    SetFrom(pulse, now);
    counter += static_cast<int64_t>(now.counter);
  }
  pulse.set_counter(counter);
  return pulse;
}

}  // namespace kino::worker
