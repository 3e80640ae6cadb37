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
  int64_t wish = 0;
  {
    absl::MutexLock lock(&mutex_);
    wish = ++wishes_;
  }
  // One claim per worker at a time; each that finds a job pumps again for the worker's other slots.
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
                       Pump();
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
                     if (is_outdated) Pump();
                   });
}

void Dispatcher::HandOver(const Reservation& reservation, ClaimedAttempt claimed) {
  const absl::Status assigned = registry_.Assign(reservation, claimed.ref, claimed.job.run_timeout);
  if (assigned.ok()) {
    start_(reservation.session, std::move(claimed));
    return;
  }
  // The worker went away while the job was claimed for it.
  store_.Fail(claimed.ref, {.cause = FailureCause::kInterrupted, .error = assigned, .stats = {}},
              [this](absl::StatusOr<Job> job) {
                if (!job.ok() && !IsStaleAttempt(job.status())) {
                  log_(absl::StrCat("giving a job back failed: ", job.status().ToString()));
                }
                Pump();
              });
}

}  // namespace kino::scheduler
