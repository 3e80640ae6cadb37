#include "scheduler/workers/dispatcher.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

Dispatcher::Dispatcher(JobStore& store, WorkerRegistry& registry, Start start,
                       std::function<void(const std::string&)> log)
    : store_(store), registry_(registry), start_(std::move(start)), log_(std::move(log)) {}

void Dispatcher::Pump() {
  {
    absl::MutexLock lock(&mutex_);
    ++wishes_;
  }
  Round();
}

void Dispatcher::Stop() {
  absl::MutexLock lock(&mutex_);
  is_stopped_ = true;
}

void Dispatcher::Round() {
  int64_t wish = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (is_stopped_) return;
    wish = wishes_;
  }
  // One claim per worker and round; one that finds a job makes another round for the other slots.
  std::vector<std::string> asked;
  while (std::optional<Reservation> reservation = registry_.Reserve(asked)) {
    asked.push_back(reservation->worker.name);
    Claim(*reservation, wish);
  }
}

void Dispatcher::Claim(const Reservation& reservation, int64_t wish) {
  store_.ClaimNext(reservation.worker,
                   [this, reservation, wish](absl::StatusOr<std::optional<ClaimedAttempt>> claim) {
                     if (claim.ok() && claim->has_value()) {
                       HandOver(reservation, **std::move(claim));
                       Round();
                       return;
                     }
                     registry_.CancelReservation(reservation);
                     if (!claim.ok()) {
                       log_(absl::StrCat("claiming a job failed: ", claim.status().ToString()));
                       return;
                     }
                     // A job that was queued after this claim looked found the slot reserved: look
                     // once more.
                     bool is_outdated = false;
                     {
                       absl::MutexLock lock(&mutex_);
                       is_outdated = wishes_ != wish;
                     }
                     if (is_outdated) Round();
                   });
}

void Dispatcher::HandOver(const Reservation& reservation, ClaimedAttempt claimed) {
  const absl::Status assigned = registry_.Assign(reservation, claimed.ref, claimed.job.run_timeout);
  if (assigned.ok()) {
    start_(reservation.session, std::move(claimed));
    return;
  }
  // The worker went away while the job was claimed for it.
  const LostAttempt lost{.ref = claimed.ref,
                         .worker = reservation.worker.name,
                         .session = 0,
                         .cause = FailureCause::kInterrupted,
                         .reason = std::string(assigned.message())};
  store_.Fail(claimed.ref, {.cause = lost.cause, .error = assigned, .stats = {}},
              [this, lost](const absl::StatusOr<Job>& job) {
                if (!job.ok() && !IsStaleAttempt(job.status())) {
                  log_(absl::StrCat("giving a job back failed: ", job.status().ToString()));
                  registry_.GiveBack(lost);
                }
                Round();
              });
}

}  // namespace kino::scheduler
