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
    : options_(options), clock_(clock) {}

void WorkerRegistry::Adopt(const std::vector<RunningAttempt>& running) {
  const absl::Duration now = clock_.Monotonic();
  absl::MutexLock lock(&mutex_);
  for (const RunningAttempt& attempt : running) {
    Worker& worker = workers_[attempt.worker];
    worker.deadline = now + options_.reattach_grace;
    worker.progress_time = now;
    worker.held.push_back({.ref = attempt.ref,
                           .run_deadline = now + attempt.run_timeout + options_.run_timeout_slack});
  }
}

absl::StatusOr<HelloResult> WorkerRegistry::Hello(const WorkerHello& hello) {
  if (hello.name.empty()) return absl::InvalidArgumentError("a worker needs a name");
  if (hello.max_attempts < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker '", hello.name, "': max_attempts: want 1 or more, got ", hello.max_attempts));
  }
  const absl::Duration now = clock_.Monotonic();
  absl::MutexLock lock(&mutex_);
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
    if (std::find(hello.held.begin(), hello.held.end(), held.ref) != hello.held.end()) {
      result.resumed.push_back(held.ref);
      resumed.push_back(std::move(held));
    } else {
      result.lost.push_back({.ref = held.ref,
                             .worker = hello.name,
                             .session = 0,
                             .cause = cause,
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
                  .device = hello.device,
                  .is_draining = false,
                  .max_attempts = hello.max_attempts,
                  .reserved = 0,
                  .models = hello.models,
                  .held = std::move(resumed),
                  .unfit_jobs = {},
                  .deadline = now + options_.lease,
                  .progress_counter = 0,
                  .progress_time = now};
  ForgetAllUnfitLocked();
  return result;
}

WorkerRegistry::Workers::iterator WorkerRegistry::FindSession(SessionId session) {
  return FindIn(workers_, session);
}

WorkerRegistry::Workers::const_iterator WorkerRegistry::FindSession(SessionId session) const {
  return FindIn(workers_, session);
}

absl::Status WorkerRegistry::Heartbeat(SessionId session, int64_t progress_counter,
                                       const std::vector<WorkerModel>& models) {
  const absl::Duration now = clock_.Monotonic();
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(session);
  if (found == workers_.end()) return SessionGone(session);
  Worker& worker = found->second;
  worker.deadline = now + options_.lease;
  worker.models = models;
  if (worker.held.empty() || worker.progress_counter != progress_counter) {
    worker.progress_counter = progress_counter;
    worker.progress_time = now;
  }
  return absl::OkStatus();
}

absl::Status WorkerRegistry::StartDraining(SessionId session) {
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(session);
  if (found == workers_.end()) return SessionGone(session);
  found->second.is_draining = true;
  ForgetAllUnfitLocked();
  return absl::OkStatus();
}

void WorkerRegistry::Disconnected(SessionId session) {
  const absl::Duration now = clock_.Monotonic();
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(session);
  if (found == workers_.end()) return;
  ForgetAllUnfitLocked();
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
  absl::MutexLock lock(&mutex_);
  std::vector<LostAttempt> lost;
  const auto found = workers_.find(name);
  if (found == workers_.end()) return lost;
  const Worker& worker = found->second;
  if (worker.process_id != 0 && process_id != 0 && worker.process_id != process_id) return lost;
  for (const Held& held : worker.held) {
    lost.push_back(
        {.ref = held.ref, .worker = name, .session = 0, .cause = cause, .reason = reason});
  }
  workers_.erase(found);
  ForgetAllUnfitLocked();
  return lost;
}

std::optional<Reservation> WorkerRegistry::Reserve(const std::vector<std::string>& skip) {
  absl::MutexLock lock(&mutex_);
  auto best = workers_.end();
  for (auto it = workers_.begin(); it != workers_.end(); ++it) {
    const Worker& worker = it->second;
    if (worker.session == 0 || worker.is_draining || worker.used() >= worker.max_attempts) continue;
    if (worker.unfit_jobs.size() >= kMaxUnfitJobs) continue;
    if (std::find(skip.begin(), skip.end(), it->first) != skip.end()) continue;
    if (best == workers_.end() || worker.used() < best->second.used()) best = it;
  }
  if (best == workers_.end()) return std::nullopt;
  Worker& worker = best->second;
  ++worker.reserved;
  Reservation reservation{
      .session = worker.session,
      .generation = generation_,
      .worker = {.name = best->first, .models = {}, .unfit_jobs = worker.unfit_jobs}};
  for (const WorkerModel& model : worker.models) reservation.worker.models.push_back(model.name);
  return reservation;
}

void WorkerRegistry::CancelReservation(const Reservation& reservation) {
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(reservation.session);
  if (found != workers_.end()) --found->second.reserved;
}

bool WorkerRegistry::CanAssign(const Reservation& reservation) const {
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(reservation.session);
  return found != workers_.end() && !found->second.is_draining;
}

void WorkerRegistry::MarkUnfit(const Reservation& reservation, const std::string& job_id) {
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(reservation.session);
  // Others came or went while the job was judged: what was found does not hold any more.
  if (found == workers_.end() || reservation.generation != generation_) return;
  found->second.unfit_jobs.insert(job_id);
}

bool WorkerRegistry::IsUnfit(const Reservation& reservation, const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(reservation.session);
  return found != workers_.end() && found->second.unfit_jobs.contains(job_id);
}

void WorkerRegistry::ForgetAllUnfit() {
  absl::MutexLock lock(&mutex_);
  ForgetAllUnfitLocked();
}

void WorkerRegistry::ForgetAllUnfitLocked() {
  ++generation_;
  for (auto& [name, worker] : workers_) worker.unfit_jobs.clear();
}

bool WorkerRegistry::ForgetUnfit(const std::string& job_id) {
  absl::MutexLock lock(&mutex_);
  bool has_room_again = false;
  for (auto& [name, worker] : workers_) {
    const bool was_full = worker.unfit_jobs.size() >= kMaxUnfitJobs;
    has_room_again |= worker.unfit_jobs.erase(job_id) > 0 && was_full;
  }
  return has_room_again;
}

absl::Status WorkerRegistry::Assign(const Reservation& reservation, const AttemptRef& ref,
                                    absl::Duration run_timeout) {
  const absl::Duration now = clock_.Monotonic();
  absl::MutexLock lock(&mutex_);
  const auto found = FindSession(reservation.session);
  if (found == workers_.end()) return SessionGone(reservation.session);
  Worker& worker = found->second;
  --worker.reserved;
  if (worker.is_draining) {
    return absl::AbortedError(absl::StrCat("worker '", found->first, "' is draining"));
  }
  if (worker.held.empty()) worker.progress_time = now;
  worker.held.push_back(
      {.ref = ref, .run_deadline = now + run_timeout + options_.run_timeout_slack});
  return absl::OkStatus();
}

absl::StatusOr<SessionId> WorkerRegistry::Holder(const AttemptRef& ref) const {
  absl::MutexLock lock(&mutex_);
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
  absl::MutexLock lock(&mutex_);
  for (auto it = workers_.begin(); it != workers_.end(); ++it) {
    Worker& worker = it->second;
    if (std::erase_if(worker.held, [&](const Held& held) { return held.ref == ref; }) == 0) {
      continue;
    }
    // Only its attempts kept an unconnected worker in the table.
    if (worker.session == 0 && worker.held.empty()) workers_.erase(it);
    return;
  }
}

bool WorkerRegistry::IsStalled(const Worker& worker, absl::Duration now) const {
  return worker.session != 0 && !worker.held.empty() &&
         now - worker.progress_time >= options_.stall_limit;
}

std::vector<LostAttempt> WorkerRegistry::TakeLost() {
  const absl::Duration now = clock_.Monotonic();
  absl::MutexLock lock(&mutex_);
  std::vector<LostAttempt> lost;
  for (auto it = workers_.begin(); it != workers_.end();) {
    const std::string& name = it->first;
    Worker& worker = it->second;
    FailureCause cause = FailureCause::kNone;
    std::string reason;
    if (now >= worker.deadline) {
      cause = FailureCause::kLeaseLost;
      reason = worker.session != 0
                   ? absl::StrCat("worker lost: no heartbeat for ", FormatDuration(options_.lease))
                   : absl::StrCat("worker lost: it did not come back within ",
                                  FormatDuration(options_.reattach_grace));
    } else if (IsStalled(worker, now)) {
      cause = FailureCause::kHang;
      reason = absl::StrCat("worker hangs: no progress for ", FormatDuration(options_.stall_limit));
    }
    if (cause != FailureCause::kNone) {
      for (const Held& held : worker.held) {
        lost.push_back({.ref = held.ref,
                        .worker = name,
                        .session = worker.session,
                        .cause = cause,
                        .reason = reason});
      }
      it = workers_.erase(it);
      continue;
    }
    std::erase_if(worker.held, [&](const Held& held) {
      if (now < held.run_deadline) return false;
      lost.push_back({.ref = held.ref,
                      .worker = name,
                      .session = worker.session,
                      .cause = FailureCause::kRunTimeout,
                      .reason = "run_timeout passed"});
      return true;
    });
    ++it;
  }
  std::erase_if(given_back_, [&](auto& entry) {
    if (now < entry.first) return false;
    lost.push_back(std::move(entry.second));
    return true;
  });
  return lost;
}

void WorkerRegistry::GiveBack(LostAttempt lost) {
  const absl::Duration again = clock_.Monotonic() + absl::Seconds(1);
  absl::MutexLock lock(&mutex_);
  given_back_.emplace_back(again, std::move(lost));
}

absl::Duration WorkerRegistry::NextDeadline() const {
  absl::MutexLock lock(&mutex_);
  absl::Duration next = absl::InfiniteDuration();
  for (const auto& [name, worker] : workers_) {
    next = std::min(next, worker.deadline);
    if (worker.session != 0 && !worker.held.empty()) {
      next = std::min(next, worker.progress_time + options_.stall_limit);
    }
    for (const Held& held : worker.held) next = std::min(next, held.run_deadline);
  }
  for (const auto& [again, lost] : given_back_) next = std::min(next, again);
  return next;
}

std::vector<WorkerSnapshot> WorkerRegistry::Snapshot() const {
  absl::MutexLock lock(&mutex_);
  std::vector<WorkerSnapshot> workers;
  for (const auto& [name, worker] : workers_) {
    WorkerSnapshot& snapshot = workers.emplace_back();
    snapshot.name = name;
    snapshot.device = worker.device;
    snapshot.session = worker.session;
    snapshot.is_draining = worker.is_draining;
    snapshot.max_attempts = worker.max_attempts;
    snapshot.reserved = worker.reserved;
    snapshot.models = worker.models;
    for (const Held& held : worker.held) snapshot.held.push_back(held.ref);
  }
  return workers;
}

}  // namespace kino::scheduler
