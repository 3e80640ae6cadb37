#include "scheduler/workers/dispatcher.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/fault_point.h"
#include "scheduler/status.h"

namespace kino::scheduler {

Dispatcher::Dispatcher(JobStore& store, WorkerRegistry& registry, JobQueue& queue, Post post,
                       Start start, Judge judge, std::function<void(const std::string&)> log)
    : store_(store),
      registry_(registry),
      queue_(queue),
      post_(std::move(post)),
      start_(std::move(start)),
      judge_(std::move(judge)),
      log_(std::move(log)) {}

void Dispatcher::Pump() {
  // Also when nothing can start: whoever waits for the queue's timer would not sleep any more.
  queue_.EndBackoffs();
  while (!is_stopped_ && hold_.empty()) {
    const std::vector<ReadyWorker> workers = registry_.Ready();
    if (workers.empty()) return;
    const QueueSnapshot heads = queue_.Heads(workers);
    const std::optional<Choice> choice = PickNext(heads, workers);
    if (!choice) return;
    const std::optional<Reservation> reservation = registry_.Reserve(workers[choice->worker].name);
    if (!reservation) return;
    const QueuedJob& job = heads.jobs[choice->job];
    queue_.Hold(job.id);
    Ask(*reservation, job);
  }
}

void Dispatcher::OnChange(const Change& change) {
  const bool has_room = queue_.Apply(change);
  for (auto& [id, question] : questions_) {
    if (question.job.id == change.job_id) question.is_void = true;
  }
  bool may_match = has_room || change.event.state == JobState::kQueued;
  if (IsTerminal(change.event.state)) may_match |= registry_.ForgetUnfit(change.job_id);
  if (may_match) Pump();
}

void Dispatcher::SetHold(const std::string& reason) {
  if (reason == hold_) return;
  hold_ = reason;
  Pump();
}

void Dispatcher::Stop() {
  is_stopped_ = true;
  for (const auto& [id, question] : questions_) LetGo(question);
  questions_.clear();
}

void Dispatcher::LetGo(const Question& question) {
  registry_.CancelReservation(question.reservation);
  queue_.Unhold(question.job.id);
}

void Dispatcher::Ask(const Reservation& reservation, const QueuedJob& job) {
  const int64_t id = ++last_question_;
  questions_[id] = {.reservation = reservation, .job = job, .is_void = false};
  judge_(reservation, job, [post = post_, this, id](const Verdict& verdict) {
    post([this, id, verdict] { Settle(id, verdict); });
  });
}

void Dispatcher::Settle(int64_t id, const Verdict& verdict) {
  const auto found = questions_.find(id);
  if (found == questions_.end()) return;  // answered before, or taken back by Stop
  const Question question = std::move(found->second);
  questions_.erase(found);
  if (question.is_void) {
    registry_.CancelReservation(question.reservation);
    return Pump();
  }
  switch (verdict.fit) {
    case Fit::kHere:
      if (hold_.empty() && registry_.CanAssign(question.reservation)) return Claim(question);
      break;
    case Fit::kElsewhere:
      registry_.MarkUnfit(question.reservation, question.job.id);
      break;
    case Fit::kNowhere:
      return Fail(question, verdict.error);
  }
  LetGo(question);
  Pump();
}

void Dispatcher::Claim(const Question& question) {
  store_.Claim(
      question.job.id, question.reservation.worker.name, question.reservation.process_id,
      queue_.StartLeft(question.job.id),
      [post = post_, this,
       question = question](absl::StatusOr<std::optional<ClaimedAttempt>> claimed) mutable {
        post([this, question = std::move(question), claimed = std::move(claimed)]() mutable {
          OnClaimed(question, std::move(claimed));
        });
      });
}

void Dispatcher::OnClaimed(const Question& question,
                           absl::StatusOr<std::optional<ClaimedAttempt>> claimed) {
  if (!claimed.ok() || !claimed->has_value()) {
    LetGo(question);
    if (claimed.ok()) return Pump();  // the job was cancelled or has expired
    if (!is_stopped_) log_(absl::StrCat("claiming a job failed: ", claimed.status().ToString()));
    return;
  }
  KINO_FAULT_POINT("frontend.claim.stored");
  ClaimedAttempt lease = **std::move(claimed);
  const absl::Status assigned =
      registry_.Assign(question.reservation, lease.ref, lease.job.run_timeout);
  start_(question.reservation, std::move(lease), assigned);
  Pump();
}

void Dispatcher::Fail(const Question& question, absl::Status error) {
  if (error.ok()) error = absl::FailedPreconditionError("the job fits on no worker that is up");
  if (ReasonOf(error).empty()) error = WithReason(std::move(error), kReasonDoesNotFit);
  store_.FailQueued(
      question.job.id, std::move(error),
      [post = post_, this, question](const absl::StatusOr<Job>& job) {
        post([this, question, status = job.status()] {
          LetGo(question);
          // Cancelled, expired or deleted meanwhile: it needs nothing more.
          const bool is_over =
              status.ok() || absl::IsFailedPrecondition(status) || absl::IsNotFound(status);
          if (is_over) return Pump();
          if (!is_stopped_) {
            log_(absl::StrCat("failing a job that does not fit: ", status.ToString()));
          }
        });
      });
}

}  // namespace kino::scheduler
