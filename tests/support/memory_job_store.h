// A JobStore in memory for tests of the scheduler: each write as plainly as its contract reads, and
// only those that the scheduler's core needs; the rest is UNIMPLEMENTED. One thread.
//
// Unlike a durable store it keeps back-off and start_timeout in monotonic time, and says them as
// wall times when asked: a step of the wall clock means nothing to it.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/retry.h"
#include "scheduler/jobs/state_machine.h"
#include "scheduler/random.h"
#include "scheduler/status.h"
#include "scheduler/store/job_store.h"

namespace kino::scheduler {

class MemoryJobStore final : public JobStore {
 public:
  struct Record {
    Job job;
    AttemptRef running;  // while RUNNING
    std::string worker;
    int64_t process_id = 0;
    int64_t order = 0;
    int uncounted_attempts = 0;
    std::set<int> forgiven;
    absl::Duration ready_at;  // monotonic, while QUEUED
    absl::Duration deadline = absl::InfiniteDuration();
    absl::Duration start_left = absl::InfiniteDuration();  // while not QUEUED
  };

  MemoryJobStore(const RetryPolicy& retry, const Clock& clock, RandomSource& random)
      : retry_(retry), clock_(clock), random_(random) {}

  // From now on writes wait for CarryOutOne; the blocking forms would wait for ever.
  void Defer() { is_deferred_ = true; }
  bool CarryOutOne() {
    if (waiting_.empty()) return false;
    auto operation = std::move(waiting_.front());
    waiting_.pop_front();
    std::move(operation)();
    return true;
  }
  const std::map<std::string, Record>& records() const { return records_; }

  using JobStore::Cancel;
  using JobStore::Claim;
  using JobStore::Commit;
  using JobStore::Delete;
  using JobStore::Expire;
  using JobStore::Fail;
  using JobStore::FailQueued;
  using JobStore::ForgiveCrashes;
  using JobStore::RecordStats;
  using JobStore::Requeue;
  using JobStore::Submit;

  void Submit(NewJob job, Done<SubmitResult> done) override {
    Write<SubmitResult>(std::move(done),
                        [this, job = std::move(job)]() -> absl::StatusOr<SubmitResult> {
                          if (records_.contains(job.id)) return absl::AlreadyExistsError(job.id);
                          Record& record = records_[job.id];
                          record.job.id = job.id;
                          record.job.tenant = job.tenant;
                          record.job.model = job.model;
                          record.job.priority = job.priority;
                          record.job.start_timeout = job.start_timeout;
                          record.job.run_timeout = job.run_timeout;
                          record.order = ++last_order_;
                          record.ready_at = clock_.Monotonic();
                          record.deadline = clock_.Monotonic() + job.start_timeout;
                          Tell(record, "");
                          return SubmitResult{.job = record.job, .is_new = true};
                        });
  }

  void Claim(std::string job_id, std::string worker, int64_t process_id, absl::Duration start_left,
             Done<std::optional<ClaimedAttempt>> done) override {
    using Lease = std::optional<ClaimedAttempt>;
    Write<Lease>(
        std::move(done), [this, job_id, worker, process_id, start_left]() -> absl::StatusOr<Lease> {
          const auto found = records_.find(job_id);
          if (found == records_.end() || found->second.job.state != JobState::kQueued)
            return Lease();
          Record& record = found->second;
          const int number = static_cast<int>(record.job.attempts.size()) + 1;
          record.running = {.job_id = job_id, .attempt = number, .token = MakeToken(random_)};
          record.worker = worker;
          record.process_id = process_id;
          if (record.job.start_timeout != absl::InfiniteDuration()) {
            record.start_left =
                std::clamp(start_left, absl::ZeroDuration(), record.job.start_timeout);
          }
          record.job.attempts.push_back(
              {.number = number, .token = record.running.token, .worker = worker});
          Move(record, JobTrigger::kClaimed, "");
          return Lease(ClaimedAttempt{.ref = record.running, .job = record.job});
        });
  }

  void RecordStats(AttemptRef ref, std::string stats, Done<Job> done) override {
    Write<Job>(std::move(done), [this, ref, stats]() -> absl::StatusOr<Job> {
      KINO_ASSIGN_OR_RETURN(Record* const record, Running(ref));
      if (!stats.empty()) record->job.stats = stats;
      return record->job;
    });
  }

  void Commit(AttemptRef ref, Artifact artifact, std::string, Done<Job> done) override {
    Write<Job>(std::move(done), [this, ref, artifact]() -> absl::StatusOr<Job> {
      KINO_ASSIGN_OR_RETURN(Record* const record, Running(ref));
      record->job.attempts.back().end_time = clock_.Now();
      if (record->job.cancel_requested) {
        record->job.attempts.back().cause = FailureCause::kCancelled;
        Move(*record, JobTrigger::kCancelled, "cancelled");
      } else {
        record->job.artifact = artifact;
        Move(*record, JobTrigger::kCommitted, "");
      }
      return record->job;
    });
  }

  void Fail(AttemptRef ref, AttemptFailure failure, Done<Job> done) override {
    Write<Job>(std::move(done), [this, ref, failure]() -> absl::StatusOr<Job> {
      KINO_ASSIGN_OR_RETURN(Record* const record, Running(ref));
      Job& job = record->job;
      job.attempts.back().end_time = clock_.Now();
      job.attempts.back().cause = failure.cause;
      job.attempts.back().error = failure.error;
      job.attempts.back().evidence = failure.evidence;
      job.failures = CountFailure(job.failures, failure.cause);
      const RetryVerdict verdict =
          DecideAfterFailure(retry_,
                             {.number = ref.attempt - record->uncounted_attempts,
                              .cause = failure.cause,
                              .error = failure.error,
                              .failures = job.failures,
                              .cancel_requested = job.cancel_requested},
                             UniformDouble(random_));
      job.error = verdict.error;
      record->ready_at = clock_.Monotonic() + verdict.backoff;
      record->deadline = clock_.Monotonic() + record->start_left;
      Move(*record, verdict.trigger, verdict.reason);
      return job;
    });
  }

  void Cancel(std::string tenant, std::string job_id, Done<Job> done) override {
    Write<Job>(std::move(done), [this, tenant, job_id]() -> absl::StatusOr<Job> {
      KINO_ASSIGN_OR_RETURN(Record* const record, Find(job_id));
      if (record->job.state == JobState::kQueued) {
        record->job.cancel_requested = true;
        Move(*record, JobTrigger::kCancelled, "cancelled");
      } else if (record->job.state == JobState::kRunning && !record->job.cancel_requested) {
        record->job.cancel_requested = true;
        Tell(*record, "cancel requested");
      }
      return record->job;
    });
  }

  void FailQueued(std::string job_id, absl::Status error, Done<Job> done) override {
    EndQueued(job_id, JobTrigger::kFailed, error, std::move(done));
  }
  void Expire(std::string job_id, Done<Job> done) override {
    EndQueued(job_id, JobTrigger::kExpired, absl::DeadlineExceededError("not started in time"),
              std::move(done));
  }

  void Requeue(std::string tenant, std::string job_id, Done<Job> done) override {
    Write<Job>(std::move(done), [this, tenant, job_id]() -> absl::StatusOr<Job> {
      KINO_ASSIGN_OR_RETURN(Record* const record, Find(job_id));
      if (!NextState(record->job.state, JobTrigger::kRequeued)) {
        return WithReason(absl::FailedPreconditionError(job_id), kReasonJobNotRequeuable);
      }
      record->uncounted_attempts = static_cast<int>(record->job.attempts.size());
      record->job.failures = {};
      RunAgain(*record);
      return record->job;
    });
  }

  void ForgiveCrashes(std::vector<AttemptRef> attempts, Done<int> done) override {
    Write<int>(std::move(done), [this, attempts]() -> absl::StatusOr<int> {
      int forgiven = 0;
      for (const AttemptRef& ref : attempts) {
        const auto found = records_.find(ref.job_id);
        if (found == records_.end()) continue;
        Record& record = found->second;
        Job& job = record.job;
        if (ref.attempt <= record.uncounted_attempts ||
            ref.attempt > static_cast<int>(job.attempts.size())) {
          continue;
        }
        const Attempt& attempt = job.attempts[static_cast<size_t>(ref.attempt) - 1];
        const bool is_crash = CountFailure({}, attempt.cause).crashes > 0;
        if (attempt.token != ref.token || !is_crash || !record.forgiven.insert(ref.attempt).second)
          continue;
        ++forgiven;
        --job.failures.crashes;
        ++job.failures.interruptions;
        if (job.state == JobState::kQuarantined && job.failures.crashes < retry_.max_crashes &&
            job.failures.unclean_stops < retry_.max_unclean_stops) {
          RunAgain(record);
        }
      }
      return forgiven;
    });
  }

  void Delete(std::string, std::string job_id, Done<std::string> done) override {
    Write<std::string>(std::move(done), [this, job_id]() -> absl::StatusOr<std::string> {
      KINO_ASSIGN_OR_RETURN(Record* const record, Find(job_id));
      if (!IsTerminal(record->job.state)) return absl::FailedPreconditionError(job_id);
      records_.erase(job_id);
      return std::string();
    });
  }

  absl::StatusOr<Job> Get(const std::string&, const std::string& job_id) override {
    return GetAnyTenant(job_id);
  }
  absl::StatusOr<Job> GetAnyTenant(const std::string& job_id) override {
    KINO_ASSIGN_OR_RETURN(const Record* const record, Find(job_id));
    return record->job;
  }
  absl::Status CheckAttempt(const AttemptRef& ref) override { return Running(ref).status(); }
  absl::StatusOr<std::vector<RunningAttempt>> RunningAttempts() override {
    std::vector<RunningAttempt> running;
    for (const auto& [id, record] : records_) {
      if (record.job.state != JobState::kRunning) continue;
      running.push_back({.ref = record.running,
                         .worker = record.worker,
                         .process_id = record.process_id,
                         .start_time = {},
                         .run_timeout = record.job.run_timeout,
                         .cancel_requested = record.job.cancel_requested});
    }
    return running;
  }
  absl::StatusOr<std::vector<QueuedJob>> Queue() override {
    std::vector<QueuedJob> queue;
    for (const auto& [id, record] : records_) {
      if (record.job.state == JobState::kQueued) queue.push_back(AsQueued(record));
    }
    std::sort(queue.begin(), queue.end(),
              [](const QueuedJob& a, const QueuedJob& b) { return a.order < b.order; });
    return queue;
  }
  int64_t AddChangeListener(ChangeListener listener) override {
    listeners_[++last_listener_] = std::move(listener);
    return last_listener_;
  }
  void RemoveChangeListener(int64_t id) override { listeners_.erase(id); }

  // --- What the scheduler's core does not need. ---
  void PurgeResults(absl::Time, int, Done<std::vector<std::string>> done) override {
    done(absl::UnimplementedError("PurgeResults"));
  }
  void PurgeJobs(absl::Time, int, Done<PurgedJobs> done) override {
    done(absl::UnimplementedError("PurgeJobs"));
  }
  absl::StatusOr<std::optional<Job>> FindByRequestId(const std::string&,
                                                     const std::string&) override {
    return absl::UnimplementedError("FindByRequestId");
  }
  absl::StatusOr<JobPage> List(const JobFilter&, int, const std::string&, int64_t) override {
    return absl::UnimplementedError("List");
  }
  absl::StatusOr<std::map<std::string, int64_t>> DiskUse() override {
    return absl::UnimplementedError("DiskUse");
  }
  absl::StatusOr<QueueLoad> Load() override { return absl::UnimplementedError("Load"); }
  absl::StatusOr<std::vector<StateEvent>> ReadEvents(const std::string&, int64_t, int) override {
    return absl::UnimplementedError("ReadEvents");
  }
  absl::StatusOr<std::vector<Change>> ReadChanges(int64_t, int) override {
    return absl::UnimplementedError("ReadChanges");
  }
  absl::StatusOr<int64_t> LatestCursor() override { return cursor_; }
  void InsertAsset(Asset, Done<Asset> done) override {
    done(absl::UnimplementedError("InsertAsset"));
  }
  void DeleteAsset(std::string, std::string, Done<std::string> done) override {
    done(absl::UnimplementedError("DeleteAsset"));
  }
  void DeleteUnusedAssets(absl::Time, int, Done<std::vector<std::string>> done) override {
    done(absl::UnimplementedError("DeleteUnusedAssets"));
  }
  absl::StatusOr<Asset> GetAsset(const std::string&, const std::string&) override {
    return absl::UnimplementedError("GetAsset");
  }
  absl::StatusOr<std::vector<Asset>> ListAssets(const std::string&, int) override {
    return absl::UnimplementedError("ListAssets");
  }
  absl::StatusOr<std::vector<std::string>> FindLeftOverFiles(
      const std::vector<std::string>&) override {
    return absl::UnimplementedError("FindLeftOverFiles");
  }

 private:
  // The change is told before the answer, as every store does.
  template <typename T>
  void Write(Done<T> done, absl::AnyInvocable<absl::StatusOr<T>()> body) {
    auto operation = [this, done = std::move(done), body = std::move(body)]() mutable {
      absl::StatusOr<T> result = body();
      const std::vector<Change> changes = std::exchange(changes_, {});
      if (!changes.empty()) {
        for (const auto& [id, listener] : listeners_) listener(changes);
      }
      done(std::move(result));
    };
    if (is_deferred_) {
      waiting_.push_back(std::move(operation));
    } else {
      operation();
    }
  }

  absl::StatusOr<Record*> Find(const std::string& id) {
    const auto found = records_.find(id);
    if (found == records_.end()) return absl::NotFoundError(id);
    return &found->second;
  }
  absl::StatusOr<Record*> Running(const AttemptRef& ref) {
    const auto found = records_.find(ref.job_id);
    if (found == records_.end() || found->second.job.state != JobState::kRunning ||
        found->second.running != ref) {
      return WithReason(absl::AbortedError(ref.job_id), kReasonStaleAttempt);
    }
    return &found->second;
  }
  void EndQueued(const std::string& job_id, JobTrigger trigger, const absl::Status& error,
                 Done<Job> done) {
    Write<Job>(std::move(done), [this, job_id, trigger, error]() -> absl::StatusOr<Job> {
      KINO_ASSIGN_OR_RETURN(Record* const record, Find(job_id));
      if (record->job.state != JobState::kQueued) return absl::FailedPreconditionError(job_id);
      record->job.error = error;
      Move(*record, trigger, std::string(error.message()));
      return record->job;
    });
  }
  void RunAgain(Record& record) {
    record.job.error = absl::OkStatus();
    record.job.cancel_requested = false;
    record.ready_at = clock_.Monotonic();
    record.deadline = clock_.Monotonic() + record.job.start_timeout;
    Move(record, JobTrigger::kRequeued, "requeued");
  }
  void Move(Record& record, JobTrigger trigger, const std::string& reason) {
    const std::optional<JobState> next = NextState(record.job.state, trigger);
    if (!next) std::abort();
    record.job.state = *next;
    Tell(record, reason);
  }
  void Tell(Record& record, const std::string& reason) {
    Change& change = changes_.emplace_back();
    change.cursor = ++cursor_;
    change.job_id = record.job.id;
    change.event = {.number = ++record.job.state_number,
                    .state = record.job.state,
                    .attempt = static_cast<int>(record.job.attempts.size()),
                    .time = clock_.Now(),
                    .reason = reason};
    if (record.job.state == JobState::kQueued) change.queued = AsQueued(record);
  }
  QueuedJob AsQueued(const Record& record) const {
    const absl::Duration now = clock_.Monotonic();
    return {.id = record.job.id,
            .model = record.job.model,
            .priority = record.job.priority,
            .order = record.order,
            .retry_not_before = clock_.Now() + (record.ready_at - now),
            .start_deadline = clock_.Now() + (record.deadline - now)};
  }

  const RetryPolicy retry_;
  const Clock& clock_;
  RandomSource& random_;
  bool is_deferred_ = false;
  int64_t last_order_ = 0;
  int64_t cursor_ = 0;
  int64_t last_listener_ = 0;
  std::map<std::string, Record> records_;
  std::vector<Change> changes_;
  std::map<int64_t, ChangeListener> listeners_;
  std::deque<absl::AnyInvocable<void()>> waiting_;
};

}  // namespace kino::scheduler
