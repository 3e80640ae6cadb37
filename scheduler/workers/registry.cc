#include "scheduler/workers/registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

namespace {

absl::Status SessionGone(SessionId session) {
  return absl::AbortedError(
      absl::StrCat("worker session ", session, " is over: its worker was lost or connected anew"));
}

template <typename Workers>
auto FindIn(Workers& workers, SessionId session) {
  return std::find_if(workers.begin(), workers.end(), [session](const auto& entry) {
    return session != 0 && entry.second.session == session;
  });
}

}  // namespace

WorkerRegistry::WorkerRegistry(const LeaseOptions& options, const Clock& clock)
    : options_(options), clock_(clock), last_look_(clock.Monotonic()) {}

void WorkerRegistry::Adopt(const std::vector<RunningAttempt>& running) {
  const absl::Duration now = clock_.Monotonic();
  for (const RunningAttempt& attempt : running) {
    Worker& worker = workers_[attempt.worker];
    worker.process_id = attempt.process_id;
    worker.deadline = now + options_.reattach_grace;
    worker.held.push_back({.ref = attempt.ref,
                           .run_timeout = attempt.run_timeout,
                           .run_deadline = absl::InfiniteDuration(),
                           .pulse = {},
                           .usual = {},
                           .progress_time = now});
  }
  ++version_;
}

absl::StatusOr<HelloResult> WorkerRegistry::Hello(const WorkerHello& hello) {
  if (hello.name.empty()) return absl::InvalidArgumentError("a worker needs a name");
  if (hello.max_attempts < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker '", hello.name, "': max_attempts: want 1 or more, got ", hello.max_attempts));
  }
  const absl::Duration now = clock_.Monotonic();
  HelloResult result;
  result.session = ++last_session_;
  Worker& worker = workers_[hello.name];
  const bool is_known = worker.process_id != 0 && hello.process_id != 0;
  const bool is_same_process = worker.process_id == hello.process_id;
  const FailureCause cause = !is_known         ? FailureCause::kLeaseLost
                             : is_same_process ? FailureCause::kInterrupted
                                               : FailureCause::kCrash;
  std::vector<Held> resumed;
  for (Held& held : worker.held) {
    held.progress_time = now;  // what it did while it was away was not heard
    if (std::find(hello.held.begin(), hello.held.end(), held.ref) != hello.held.end()) {
      result.resumed.push_back(held.ref);
      resumed.push_back(std::move(held));
    } else {
      result.lost.push_back({.ref = held.ref,
                             .worker = hello.name,
                             .session = 0,
                             .cause = cause,
                             .pulse = held.pulse,
                             .reason = cause == FailureCause::kInterrupted
                                           ? "worker never got the attempt"
                                           : "worker lost: it came back without the attempt"});
    }
  }
  for (const AttemptRef& ref : hello.held) {
    if (std::find(result.resumed.begin(), result.resumed.end(), ref) == result.resumed.end()) {
      result.dropped.push_back(ref);
    }
  }
  worker = Worker{.session = result.session,
                  .process_id = hello.process_id,
                  .counter = 0,
                  .device = hello.device,
                  .is_draining = false,
                  .max_attempts = hello.max_attempts,
                  .reserved = 0,
                  .models = hello.models,
                  .held = std::move(resumed),
                  .unfit_jobs = {},
                  .deadline = now + options_.lease};
  ForgetAllUnfit();
  return result;
}

WorkerRegistry::Workers::iterator WorkerRegistry::FindSession(SessionId session) {
  return FindIn(workers_, session);
}

WorkerRegistry::Workers::const_iterator WorkerRegistry::FindSession(SessionId session) const {
  return FindIn(workers_, session);
}

WorkerRegistry::Held* WorkerRegistry::FindHeld(const AttemptRef& ref) {
  for (auto& [name, worker] : workers_) {
    for (Held& held : worker.held) {
      if (held.ref == ref) return &held;
    }
  }
  return nullptr;
}

absl::Status WorkerRegistry::Heard(SessionId session) {
  const auto found = FindSession(session);
  if (found == workers_.end()) return SessionGone(session);
  found->second.deadline = clock_.Monotonic() + options_.lease;
  return absl::OkStatus();
}

absl::Status WorkerRegistry::Heartbeat(SessionId session, int64_t counter,
                                       const std::vector<AttemptPulse>& pulses,
                                       const std::vector<WorkerModel>& models) {
  const absl::Duration now = clock_.Monotonic();
  const auto found = FindSession(session);
  if (found == workers_.end()) return SessionGone(session);
  Worker& worker = found->second;
  worker.deadline = now + options_.lease;
  if (worker.models != models) {
    worker.models = models;
    ++version_;
  }
  for (const AttemptPulse& pulse : pulses) {
    for (Held& held : worker.held) {
      if (held.ref != pulse.ref) continue;
      if (held.pulse.stage != pulse.stage || held.pulse.counter != pulse.counter)
        held.progress_time = now;
      held.pulse = pulse;
      const bool is_running = pulse.stage != kStageWaiting && pulse.stage != kStageLoad;
      if (is_running && held.run_deadline == absl::InfiniteDuration())
        held.run_deadline = now + held.run_timeout + options_.run_timeout_slack;
    }
  }
  if (std::exchange(worker.counter, counter) != counter) {
    for (Held& held : worker.held) {
      if (held.pulse.stage == kStageWaiting) held.progress_time = now;
    }
  }
  return absl::OkStatus();
}

absl::Status WorkerRegistry::StartDraining(SessionId session) {
  const auto found = FindSession(session);
  if (found == workers_.end()) return SessionGone(session);
  found->second.is_draining = true;
  ForgetAllUnfit();
  return absl::OkStatus();
}

void WorkerRegistry::SetOut(const std::string& device, bool is_out) {
  const bool changed = is_out ? out_.insert(device).second : out_.erase(device) > 0;
  if (changed) ForgetAllUnfit();
}

void WorkerRegistry::Disconnected(SessionId session) {
  const absl::Duration now = clock_.Monotonic();
  const auto found = FindSession(session);
  if (found == workers_.end()) return;
  ForgetAllUnfit();
  if (found->second.held.empty()) {
    workers_.erase(found);
    return;
  }
  found->second.session = 0;
  found->second.reserved = 0;
  found->second.deadline = now + options_.reattach_grace;
}

std::vector<LostAttempt> WorkerRegistry::WorkerEnded(const std::string& name, int64_t process_id,
                                                     FailureCause cause,
                                                     const std::string& reason) {
  std::vector<LostAttempt> lost;
  const auto found = workers_.find(name);
  if (found == workers_.end()) return lost;
  const Worker& worker = found->second;
  if (worker.process_id != 0 && process_id != 0 && worker.process_id != process_id) return lost;
  for (const Held& held : worker.held) {
    lost.push_back({.ref = held.ref,
                    .worker = name,
                    .session = 0,
                    .cause = cause,
                    .pulse = held.pulse,
                    .reason = reason});
  }
  workers_.erase(found);
  ForgetAllUnfit();
  return lost;
}

bool WorkerRegistry::IsReady(const Worker& worker) const {
  return worker.session != 0 && !worker.is_draining && !out_.contains(worker.device) &&
         worker.used() < worker.max_attempts && worker.unfit_jobs.size() < kMaxUnfitJobs;
}

ReadyWorker WorkerRegistry::Describe(const std::string& name, const Worker& worker) const {
  ReadyWorker ready{.name = name,
                    .models = {},
                    .loaded = {},
                    .attempts = worker.used(),
                    .unfit_jobs = worker.unfit_jobs};
  for (const WorkerModel& model : worker.models) {
    ready.models.insert(model.name);
    if (model.loaded) ready.loaded.insert(model.name);
  }
  return ready;
}

std::vector<ReadyWorker> WorkerRegistry::Ready() const {
  std::vector<ReadyWorker> ready;
  for (const auto& [name, worker] : workers_) {
    if (IsReady(worker)) ready.push_back(Describe(name, worker));
  }
  return ready;
}

std::optional<Reservation> WorkerRegistry::Reserve(const std::string& name) {
  const auto found = workers_.find(name);
  if (found == workers_.end() || !IsReady(found->second)) return std::nullopt;
  Worker& worker = found->second;
  Reservation reservation{.session = worker.session,
                          .generation = generation_,
                          .process_id = worker.process_id,
                          .worker = Describe(name, worker)};
  ++worker.reserved;
  ++version_;
  return reservation;
}

void WorkerRegistry::CancelReservation(const Reservation& reservation) {
  const auto found = FindSession(reservation.session);
  if (found == workers_.end()) return;
  --found->second.reserved;
  ++version_;
}

bool WorkerRegistry::CanAssign(const Reservation& reservation) const {
  const auto found = FindSession(reservation.session);
  return found != workers_.end() && !found->second.is_draining &&
         !out_.contains(found->second.device);
}

void WorkerRegistry::MarkUnfit(const Reservation& reservation, const std::string& job_id) {
  const auto found = FindSession(reservation.session);
  // Others came or went while the job was judged: what was found does not hold any more.
  if (found == workers_.end() || reservation.generation != generation_) return;
  found->second.unfit_jobs.insert(job_id);
  ++version_;
}

bool WorkerRegistry::IsUnfit(const Reservation& reservation, const std::string& job_id) const {
  const auto found = FindSession(reservation.session);
  return found != workers_.end() && found->second.unfit_jobs.contains(job_id);
}

void WorkerRegistry::ForgetAllUnfit() {
  ++generation_;
  ++version_;
  for (auto& [name, worker] : workers_) worker.unfit_jobs.clear();
}

std::set<std::string> WorkerRegistry::Unfit() const {
  std::set<std::string> unfit;
  for (const auto& [name, worker] : workers_)
    unfit.insert(worker.unfit_jobs.begin(), worker.unfit_jobs.end());
  return unfit;
}

bool WorkerRegistry::ForgetUnfit(const std::string& job_id) {
  bool has_room_again = false;
  for (auto& [name, worker] : workers_) {
    const bool was_full = worker.unfit_jobs.size() >= kMaxUnfitJobs;
    has_room_again |= worker.unfit_jobs.erase(job_id) > 0 && was_full;
  }
  return has_room_again;
}

absl::Status WorkerRegistry::Assign(const Reservation& reservation, const AttemptRef& ref,
                                    absl::Duration run_timeout) {
  const auto found = FindSession(reservation.session);
  if (found == workers_.end()) return SessionGone(reservation.session);
  Worker& worker = found->second;
  --worker.reserved;
  ++version_;
  if (worker.is_draining || out_.contains(worker.device)) {
    return absl::AbortedError(absl::StrCat("worker '", found->first, "' is ",
                                           worker.is_draining ? "draining" : "out of service"));
  }
  worker.held.push_back({.ref = ref,
                         .run_timeout = run_timeout,
                         .run_deadline = absl::InfiniteDuration(),
                         .pulse = {},
                         .usual = {},
                         .progress_time = clock_.Monotonic()});
  return absl::OkStatus();
}

void WorkerRegistry::Begun(const AttemptRef& ref) {
  Held* held = FindHeld(ref);
  if (held == nullptr) return;
  held->run_deadline = clock_.Monotonic() + held->run_timeout + options_.run_timeout_slack;
}

void WorkerRegistry::SetUsualSteps(const AttemptRef& ref, UsualSteps steps) {
  Held* held = FindHeld(ref);
  if (held != nullptr) held->usual = std::move(steps);
}

AttemptPulse WorkerRegistry::PulseOf(const AttemptRef& ref) const {
  const Held* held = const_cast<WorkerRegistry*>(this)->FindHeld(ref);
  return held == nullptr ? AttemptPulse{.ref = ref} : held->pulse;
}

absl::StatusOr<SessionId> WorkerRegistry::Holder(const AttemptRef& ref) const {
  for (const auto& [name, worker] : workers_) {
    if (worker.session == 0) continue;
    for (const Held& held : worker.held) {
      if (held.ref == ref) return worker.session;
    }
  }
  return WithReason(absl::AbortedError(absl::StrCat("no connected worker holds attempt ",
                                                    ref.attempt, " of job '", ref.job_id, "'")),
                    kReasonStaleAttempt);
}

void WorkerRegistry::Release(const AttemptRef& ref) {
  for (auto it = workers_.begin(); it != workers_.end(); ++it) {
    Worker& worker = it->second;
    if (std::erase_if(worker.held, [&](const Held& held) { return held.ref == ref; }) == 0) {
      continue;
    }
    ++version_;
    // Only its attempts kept an unconnected worker in the table.
    if (worker.session == 0 && worker.held.empty()) {
      workers_.erase(it);
      ForgetAllUnfit();
    }
    return;
  }
}

absl::Duration WorkerRegistry::HangLimit(const Held& held) const {
  const HangLimits& limits = options_.hang;
  const AttemptPulse& pulse = held.pulse;
  if (pulse.stage == kStageLoad || pulse.stage == kStageWaiting) return limits.loading;
  absl::Duration usual;
  if (pulse.steps >= limits.steps_to_know) usual = pulse.usual_step;
  const auto before = held.usual.find(pulse.stage);
  if (before != held.usual.end() && before->second.steps >= limits.steps_to_know)
    usual = std::max(usual, before->second.time);
  if (usual <= absl::ZeroDuration()) return limits.unknown;
  return std::max(limits.least, limits.factor * usual);
}

void WorkerRegistry::ListenFirst(absl::Duration now) {
  late_ = std::max(now - last_look_ - options_.look_interval, absl::ZeroDuration());
  last_look_ = now;
  for (auto& [name, worker] : workers_) {
    worker.deadline += late_;
    for (Held& held : worker.held) {
      held.progress_time += late_;
      held.run_deadline += late_;
    }
  }
}

std::vector<LostAttempt> WorkerRegistry::TakeLost() {
  const absl::Duration now = clock_.Monotonic();
  ListenFirst(now);
  std::vector<LostAttempt> lost;
  const auto lose = [&](const std::string& name, const Worker& worker, const Held& held,
                        FailureCause cause, const std::string& reason) {
    lost.push_back({.ref = held.ref,
                    .worker = name,
                    .session = worker.session,
                    .cause = cause,
                    .pulse = held.pulse,
                    .reason = reason});
  };
  bool has_gone = false;
  for (auto it = workers_.begin(); it != workers_.end();) {
    const std::string& name = it->first;
    Worker& worker = it->second;
    if (now >= worker.deadline) {
      const std::string reason =
          worker.session != 0
              ? absl::StrCat("worker lost: no word for ", FormatDuration(options_.lease))
              : absl::StrCat("worker lost: it did not come back within ",
                             FormatDuration(options_.reattach_grace));
      for (const Held& held : worker.held)
        lose(name, worker, held, FailureCause::kLeaseLost, reason);
      it = workers_.erase(it);
      has_gone = true;
      continue;
    }
    // What one waits for is judged, not the wait.
    const bool is_somebody_busy =
        std::any_of(worker.held.begin(), worker.held.end(),
                    [](const Held& held) { return held.pulse.stage != kStageWaiting; });
    for (Held& held : worker.held) {
      if (is_somebody_busy && held.pulse.stage == kStageWaiting) held.progress_time = now;
    }
    const size_t over = std::erase_if(worker.held, [&](const Held& held) {
      if (now >= held.run_deadline) {
        lose(name, worker, held, FailureCause::kRunTimeout, "run_timeout passed");
        return true;
      }
      const absl::Duration limit = HangLimit(held);
      // One that is not connected is judged by its grace.
      if (worker.session == 0 || now - held.progress_time < limit) return false;
      lose(name, worker, held, FailureCause::kHang,
           absl::StrCat("worker hangs: no progress for ", FormatDuration(limit)));
      return true;
    });
    if (over > 0) ++version_;
    ++it;
  }
  if (has_gone) ForgetAllUnfit();
  return lost;
}

std::vector<WorkerSnapshot> WorkerRegistry::Snapshot() const {
  std::vector<WorkerSnapshot> workers;
  for (const auto& [name, worker] : workers_) {
    WorkerSnapshot& snapshot = workers.emplace_back();
    snapshot.name = name;
    snapshot.device = worker.device;
    snapshot.session = worker.session;
    snapshot.is_draining = worker.is_draining;
    snapshot.is_out = out_.contains(worker.device);
    snapshot.max_attempts = worker.max_attempts;
    snapshot.reserved = worker.reserved;
    snapshot.models = worker.models;
    for (const Held& held : worker.held) snapshot.held.push_back(held.ref);
  }
  return workers;
}

}  // namespace kino::scheduler
