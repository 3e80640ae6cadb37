#include "scheduler/workers/dispatcher.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

Dispatcher::Dispatcher(JobStore& store, WorkerRegistry& registry, Start start, Judge judge,
                       std::function<void(const std::string&)> log)
    : store_(store),
      registry_(registry),
      start_(std::move(start)),
      judge_(std::move(judge)),
      log_(std::move(log)) {}

void Dispatcher::Pump() {
  {
    absl::MutexLock lock(&state_->mutex);
    ++state_->wishes;
  }
  Round();
}

void Dispatcher::OnChanges(const std::vector<Change>& changes) {
  bool may_match = false;
  for (const Change& change : changes) {
    may_match |= change.event.state == JobState::kQueued;
    if (IsTerminal(change.event.state)) may_match |= registry_.ForgetUnfit(change.job_id);
  }
  if (may_match) Pump();
}

void Dispatcher::Stop() {
  absl::MutexLock lock(&state_->mutex);
  state_->is_stopped = true;
  std::erase_if(state_->questions, [this](const auto& entry) {
    if (entry.second.is_answered) return false;
    registry_.CancelReservation(entry.second.reservation);
    return true;
  });
  State* const state = state_.get();
  const auto none_is_answering = [state]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state->mutex) {
    return state->answering == 0;
  };
  state_->mutex.Await(absl::Condition(&none_is_answering));
}

void Dispatcher::Round() {
  int64_t wish = 0;
  {
    absl::MutexLock lock(&state_->mutex);
    if (state_->is_stopped) return;
    wish = state_->wishes;
  }
  // One claim per worker and round; one that finds a job makes another round for the other slots.
  std::vector<std::string> asked;
  while (std::optional<Reservation> reservation = registry_.Reserve(asked)) {
    asked.push_back(reservation->worker.name);
    Look(*reservation, wish);
  }
}

void Dispatcher::Look(const Reservation& reservation, int64_t wish) {
  const auto on_nothing = [this, reservation, wish](const absl::Status& status) {
    registry_.CancelReservation(reservation);
    if (!status.ok()) {
      Report("looking for a job", status);
      return;
    }
    // A job that was queued after this look found the slot reserved: look once more.
    bool is_outdated = false;
    {
      absl::MutexLock lock(&state_->mutex);
      is_outdated = state_->wishes != wish;
    }
    if (is_outdated) Round();
  };
  ReadyWorker worker = reservation.worker;
  {
    absl::MutexLock lock(&state_->mutex);
    for (const auto& [id, question] : state_->questions) worker.unfit_jobs.insert(question.job_id);
  }
  store_.FindNext(std::move(worker),
                  [this, reservation, on_nothing](const absl::StatusOr<std::optional<Job>>& job) {
                    if (!job.ok() || !job->has_value()) return on_nothing(job.status());
                    Ask(reservation, **job);
                    Round();
                  });
}

void Dispatcher::Ask(const Reservation& reservation, const Job& job) {
  int64_t id = 0;
  {
    absl::MutexLock lock(&state_->mutex);
    // Another slot may have looked at the same time and found the same job.
    const bool is_held =
        std::any_of(state_->questions.begin(), state_->questions.end(),
                    [&](const auto& entry) { return entry.second.job_id == job.id; });
    if (!state_->is_stopped && !is_held && !registry_.IsUnfit(reservation, job.id)) {
      id = ++state_->last_question;
      state_->questions[id] = {.reservation = reservation, .job_id = job.id};
    }
  }
  if (id == 0) {
    registry_.CancelReservation(reservation);
    return;
  }
  judge_(reservation, job,
         [state = state_, this, id](const Verdict& verdict) { Answer(*state, this, id, verdict); });
}

void Dispatcher::Answer(State& state, Dispatcher* dispatcher, int64_t id, const Verdict& verdict) {
  Question question;
  {
    absl::MutexLock lock(&state.mutex);
    const auto found = state.questions.find(id);
    // Stop has taken it back, or it was answered before. The dispatcher may be gone.
    if (found == state.questions.end() || found->second.is_answered) return;
    found->second.is_answered = true;
    question = found->second;
    ++state.answering;
  }
  dispatcher->Settle(id, question, verdict);
  absl::MutexLock lock(&state.mutex);
  --state.answering;
}

void Dispatcher::Settle(int64_t id, const Question& question, const Verdict& verdict) {
  const Reservation& reservation = question.reservation;
  switch (verdict.fit) {
    case Fit::kHere:
      if (registry_.CanAssign(reservation)) return Claim(id, question);
      break;
    case Fit::kElsewhere: {
      registry_.MarkUnfit(reservation, question.job_id);
      // Its end may have been told before the mark was there.
      const absl::StatusOr<Job> job = store_.GetAnyTenant(question.job_id);
      const bool has_ended = job.ok() ? IsTerminal(job->state) : absl::IsNotFound(job.status());
      if (has_ended) registry_.ForgetUnfit(question.job_id);
      break;
    }
    case Fit::kNowhere:
      return Fail(id, question, verdict.error);
  }
  registry_.CancelReservation(reservation);
  Close(id);
  Pump();  // whoever looked meanwhile was not offered the job
}

void Dispatcher::Close(int64_t id) {
  absl::MutexLock lock(&state_->mutex);
  state_->questions.erase(id);
}

void Dispatcher::Report(const char* what, const absl::Status& status) {
  {
    absl::MutexLock lock(&state_->mutex);
    if (state_->is_stopped) return;  // the store may be closing
  }
  log_(absl::StrCat(what, " failed: ", status.ToString()));
}

void Dispatcher::Claim(int64_t id, const Question& question) {
  store_.Claim(question.job_id, question.reservation.worker.name,
               [this, id, question](absl::StatusOr<std::optional<ClaimedAttempt>> claim) {
                 Close(id);
                 if (claim.ok() && claim->has_value()) {
                   HandOver(question.reservation, **std::move(claim));
                   Round();
                   return;
                 }
                 registry_.CancelReservation(question.reservation);
                 if (claim.ok()) {
                   Pump();  // the job was cancelled or has expired
                 } else {
                   Report("claiming a job", claim.status());
                 }
               });
}

void Dispatcher::Fail(int64_t id, const Question& question, absl::Status error) {
  if (error.ok()) error = absl::FailedPreconditionError("the job fits on no worker that is up");
  if (ReasonOf(error).empty()) error = WithReason(std::move(error), kReasonDoesNotFit);
  store_.FailQueued(
      question.job_id, std::move(error), [this, id, question](const absl::StatusOr<Job>& job) {
        Close(id);
        registry_.CancelReservation(question.reservation);
        // Cancelled, expired or deleted meanwhile: it needs nothing more.
        const bool is_over =
            job.ok() || absl::IsFailedPrecondition(job.status()) || absl::IsNotFound(job.status());
        if (is_over) {
          Pump();
        } else {
          Report("failing a job that does not fit", job.status());
        }
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
