// The writes on jobs. Each ...Now runs inside a transaction on the writer's thread and may run
// twice (see Writer), so it takes its arguments by reference and keeps nothing.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/sqlite_job_store.h"

namespace kino::scheduler {

namespace {

absl::Status EndAttempt(Connection& db, const JobRow& row, absl::Time now, FailureCause cause,
                        const absl::Status& error) {
  const std::string message(error.message());
  KINO_ASSIGN_OR_RETURN(
      const int64_t changed,
      db.Run("UPDATE attempts SET end_us = ?, cause = ?, error_code = ?, error_message = ? "
             "WHERE job = ? AND number = ? AND end_us IS NULL",
             SaturatingMicros(now), static_cast<int>(cause), static_cast<int>(error.code()),
             message, row.seq, row.attempt));
  if (changed == 1) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("job '", row.job.id, "': attempt ", row.attempt, " has ended before"));
}

absl::Status CheckAssets(Connection& db, const NewJob& job) {
  for (const std::string& asset : job.asset_ids) {
    KINO_ASSIGN_OR_RETURN(
        Statement row,
        db.Query("SELECT 1 FROM assets WHERE id = ? AND tenant = ?", asset, job.tenant));
    KINO_ASSIGN_OR_RETURN(const bool is_there, row.Step());
    if (!is_there) return absl::NotFoundError(absl::StrCat("there is no asset '", asset, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CountQueued(Connection& db) {
  KINO_ASSIGN_OR_RETURN(Statement row,
                        db.Query("SELECT coalesce(sum(jobs), 0) FROM job_counts WHERE state = 1"));
  KINO_ASSIGN_OR_RETURN(const bool has_row, row.Step());
  return has_row ? row.Int64(0) : 0;
}

// The ids of a one-column result.
absl::StatusOr<std::vector<std::string>> Texts(Statement statement) {
  std::vector<std::string> texts;
  while (true) {
    KINO_ASSIGN_OR_RETURN(const bool has_row, statement.Step());
    if (!has_row) return texts;
    texts.push_back(statement.Text(0));
  }
}

absl::Status InsertJob(Connection& db, const NewJob& job, const std::string& id, absl::Time now,
                       int64_t& seq) {
  std::optional<int64_t> start_deadline;
  if (job.start_timeout != absl::InfiniteDuration()) {
    start_deadline = SaturatingMicros(now + job.start_timeout);
  }
  const std::optional<std::string> request_id =
      job.request_id.empty() ? std::nullopt : std::optional<std::string>(job.request_id);
  KINO_RETURN_IF_ERROR(
      db.Run("INSERT INTO jobs(id, tenant, model, priority, request_id, fingerprint, "
             "server_version, create_us, start_timeout_us, run_timeout_us, start_deadline_us, "
             "state, state_number, attempt, token, cancel_requested, crashes, out_of_memory, "
             "interruptions, error_code, error_message, artifact_purged, stats) "
             "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 1, 0, '', 0, 0, 0, 0, 0, '', 0, x'')",
             id, job.tenant, job.model, static_cast<int>(job.priority), request_id,
             Blob{job.request_fingerprint}, job.server_version, SaturatingMicros(now),
             OptionalMicros(job.start_timeout), OptionalMicros(job.run_timeout), start_deadline)
          .status());
  seq = db.last_insert_rowid();
  KINO_RETURN_IF_ERROR(
      db.Run("INSERT INTO requests(job, request) VALUES (?, ?)", seq, Blob{job.request}).status());
  for (const auto& [key, value] : job.labels) {
    KINO_RETURN_IF_ERROR(db.Run("INSERT INTO labels(job, key, value, tenant) VALUES (?, ?, ?, ?)",
                                seq, key, value, job.tenant)
                             .status());
  }
  for (const std::string& asset : job.asset_ids) {
    KINO_RETURN_IF_ERROR(
        db.Run("INSERT OR IGNORE INTO job_assets(job, asset) VALUES (?, ?)", seq, asset).status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SubmitResult> SqliteJobStore::SubmitNow(Transaction& transaction,
                                                       const NewJob& job) {
  Connection& db = transaction.db;
  if (!job.request_id.empty()) {
    std::string first;
    {
      KINO_ASSIGN_OR_RETURN(Statement row,
                            db.Query("SELECT id FROM jobs WHERE tenant = ? AND request_id = ?",
                                     job.tenant, job.request_id));
      KINO_ASSIGN_OR_RETURN(const bool is_there, row.Step());
      if (is_there) first = row.Text(0);
    }
    if (!first.empty()) {
      KINO_ASSIGN_OR_RETURN(JobRow row, LoadRow(db, first));
      if (row.job.request_fingerprint != job.request_fingerprint) {
        return WithReason(absl::AlreadyExistsError(
                              absl::StrCat("request_id '", job.request_id,
                                           "' was used for another request, job '", first, "'")),
                          kReasonRequestIdReused);
      }
      KINO_ASSIGN_OR_RETURN(Job found, Complete(db, std::move(row)));
      return SubmitResult{.job = std::move(found), .is_new = false};
    }
  }
  KINO_ASSIGN_OR_RETURN(const int64_t queued, CountQueued(db));
  KINO_RETURN_IF_ERROR(CheckAdmission(options_.admission, queued, job));
  KINO_RETURN_IF_ERROR(CheckAssets(db, job));
  const absl::Time now = clock_.Now();
  const std::string id = job.id.empty() ? MakeId(now, random_) : job.id;
  if (LoadRow(db, id).ok()) {
    return absl::AlreadyExistsError(absl::StrCat("there is a job '", id, "'"));
  }
  int64_t seq = 0;
  KINO_RETURN_IF_ERROR(InsertJob(db, job, id, now, seq));
  KINO_ASSIGN_OR_RETURN(JobRow row, LoadRow(db, id));
  KINO_RETURN_IF_ERROR(AppendEvent(transaction, row, now, ""));
  KINO_ASSIGN_OR_RETURN(Job made, Complete(db, std::move(row)));
  return SubmitResult{.job = std::move(made), .is_new = true};
}

int64_t SqliteJobStore::FarthestBackoffMicros(absl::Time now) const {
  return SaturatingMicros(now + 2 * options_.retry.max_backoff);
}

bool SqliteJobStore::IsDue(const JobRow& row, absl::Time now) const {
  const std::optional<absl::Time>& not_before = row.job.retry_not_before;
  if (row.job.state != JobState::kQueued) return false;
  if (row.start_deadline_us && *row.start_deadline_us <= SaturatingMicros(now)) return false;
  return !not_before || *not_before <= now ||
         SaturatingMicros(*not_before) > FarthestBackoffMicros(now);
}

absl::StatusOr<std::optional<Job>> SqliteJobStore::FindNow(Connection& db,
                                                           const ReadyWorker& worker) {
  const absl::Time now = clock_.Now();
  const int64_t now_us = SaturatingMicros(now);
  // The first of each (class, model) that the worker may get is all the policy can choose from.
  QueueSnapshot queue;
  for (const std::string& model : worker.models) {
    for (const Priority priority : kPrioritiesHighestFirst) {
      KINO_ASSIGN_OR_RETURN(
          Statement row,
          db.Query("SELECT id, seq FROM jobs INDEXED BY queue_by_model WHERE state = 1 AND model = "
                   "? AND priority = ? "
                   "AND (not_before_us IS NULL OR not_before_us <= ? OR not_before_us > ?) "
                   "AND (start_deadline_us IS NULL OR start_deadline_us > ?) "
                   "ORDER BY seq",
                   model, static_cast<int>(priority), now_us, FarthestBackoffMicros(now), now_us));
      while (true) {
        KINO_ASSIGN_OR_RETURN(const bool has_row, row.Step());
        if (!has_row) break;
        QueuedJob job{
            .id = row.Text(0), .model = model, .priority = priority, .order = row.Int64(1)};
        if (worker.unfit_jobs.contains(job.id)) continue;
        queue.jobs.push_back(std::move(job));
        break;
      }
    }
  }
  const std::optional<size_t> picked = PickNext(queue, worker);
  if (!picked) return std::nullopt;
  KINO_ASSIGN_OR_RETURN(JobRow row, LoadRow(db, queue.jobs[*picked].id));
  KINO_ASSIGN_OR_RETURN(Job job, Complete(db, std::move(row)));
  return job;
}

absl::StatusOr<std::optional<ClaimedAttempt>> SqliteJobStore::ClaimNow(Transaction& transaction,
                                                                       const std::string& job_id,
                                                                       const std::string& worker) {
  Connection& db = transaction.db;
  const absl::Time now = clock_.Now();
  const int64_t now_us = SaturatingMicros(now);
  const absl::StatusOr<JobRow> found = LoadRow(db, job_id);
  if (absl::IsNotFound(found.status())) return std::nullopt;
  if (!found.ok()) return found.status();
  const JobRow& before = *found;
  if (!IsDue(before, now)) return std::nullopt;
  JobRow after = before;
  after.attempt = before.attempt + 1;
  after.token = MakeToken(random_);
  if (!after.job.start_time) after.job.start_time = now;
  if (before.start_deadline_us) {
    after.start_left_us = std::max<int64_t>(0, *before.start_deadline_us - now_us);
  }
  KINO_RETURN_IF_ERROR(ApplyTransition(transaction, before, JobTrigger::kClaimed, now, "", after));
  KINO_RETURN_IF_ERROR(
      db.Run("INSERT INTO attempts(job, number, token, worker, start_us, cause, error_code, "
             "error_message) VALUES (?, ?, ?, ?, ?, 0, 0, '')",
             after.seq, after.attempt, after.token, worker, now_us)
          .status());
  ClaimedAttempt claimed;
  claimed.ref = {.job_id = after.job.id, .attempt = after.attempt, .token = after.token};
  KINO_ASSIGN_OR_RETURN(claimed.job, Complete(db, std::move(after)));
  return claimed;
}

absl::StatusOr<Job> SqliteJobStore::CommitNow(Transaction& transaction, const AttemptRef& ref,
                                              const Artifact& artifact, const std::string& stats) {
  Connection& db = transaction.db;
  KINO_ASSIGN_OR_RETURN(const JobRow before, LoadAttemptRow(db, ref));
  const absl::Time now = clock_.Now();
  JobRow after = before;
  if (!stats.empty()) after.job.stats = stats;
  if (before.job.cancel_requested) {
    // The mark came first: the result is not taken.
    const absl::Status error = absl::CancelledError("cancelled");
    KINO_RETURN_IF_ERROR(EndAttempt(db, before, now, FailureCause::kCancelled, error));
    KINO_RETURN_IF_ERROR(
        ApplyTransition(transaction, before, JobTrigger::kCancelled, now, "cancelled", after));
    return Complete(db, std::move(after));
  }
  after.job.artifact = artifact;
  KINO_RETURN_IF_ERROR(EndAttempt(db, before, now, FailureCause::kNone, absl::OkStatus()));
  KINO_RETURN_IF_ERROR(
      ApplyTransition(transaction, before, JobTrigger::kCommitted, now, "", after));
  return Complete(db, std::move(after));
}

absl::StatusOr<Job> SqliteJobStore::FailNow(Transaction& transaction, const AttemptRef& ref,
                                            const AttemptFailure& failure) {
  Connection& db = transaction.db;
  KINO_ASSIGN_OR_RETURN(const JobRow before, LoadAttemptRow(db, ref));
  const absl::Time now = clock_.Now();
  JobRow after = before;
  if (!failure.stats.empty()) after.job.stats = failure.stats;
  after.job.failures = CountFailure(before.job.failures, failure.cause);
  const RetryVerdict verdict = DecideAfterFailure(options_.retry,
                                                  {.number = ref.attempt,
                                                   .cause = failure.cause,
                                                   .error = failure.error,
                                                   .failures = after.job.failures,
                                                   .cancel_requested = before.job.cancel_requested},
                                                  UniformDouble(random_));
  if (verdict.trigger == JobTrigger::kAttemptLost) {
    if (before.start_left_us) {
      after.start_deadline_us = SaturatingMicros(now + absl::Microseconds(*before.start_left_us));
      after.start_left_us.reset();
    }
    if (verdict.backoff > absl::ZeroDuration()) after.job.retry_not_before = now + verdict.backoff;
  } else {
    after.job.error = verdict.error;
  }
  KINO_RETURN_IF_ERROR(EndAttempt(db, before, now, failure.cause, failure.error));
  KINO_RETURN_IF_ERROR(
      ApplyTransition(transaction, before, verdict.trigger, now, verdict.reason, after));
  return Complete(db, std::move(after));
}

absl::StatusOr<Job> SqliteJobStore::CancelNow(Transaction& transaction, const std::string& tenant,
                                              const std::string& job_id) {
  KINO_ASSIGN_OR_RETURN(const JobRow before, LoadTenantRow(transaction.db, tenant, job_id));
  const absl::Time now = clock_.Now();
  JobRow after = before;
  if (before.job.state == JobState::kQueued) {
    after.job.cancel_requested = true;
    KINO_RETURN_IF_ERROR(
        ApplyTransition(transaction, before, JobTrigger::kCancelled, now, "cancelled", after));
  } else if (before.job.state == JobState::kRunning && !before.job.cancel_requested) {
    after.job.cancel_requested = true;
    KINO_RETURN_IF_ERROR(ApplyMark(transaction, before, now, "cancel requested", after));
  }
  return Complete(transaction.db, std::move(after));
}

absl::StatusOr<std::vector<std::string>> SqliteJobStore::ExpireNow(Transaction& transaction) {
  const absl::Time now = clock_.Now();
  absl::StatusOr<Statement> due = transaction.db.Query(
      "SELECT id FROM jobs INDEXED BY queue_by_deadline "
      "WHERE state = 1 AND start_deadline_us IS NOT NULL "
      "AND start_deadline_us <= ? ORDER BY start_deadline_us LIMIT 1000",
      SaturatingMicros(now));
  if (!due.ok()) return due.status();
  KINO_ASSIGN_OR_RETURN(std::vector<std::string> ids, Texts(*std::move(due)));
  for (const std::string& id : ids) {
    KINO_ASSIGN_OR_RETURN(const JobRow before, LoadRow(transaction.db, id));
    JobRow after = before;
    after.job.error = absl::DeadlineExceededError(
        absl::StrCat("not started within ", absl::FormatDuration(before.job.start_timeout)));
    KINO_RETURN_IF_ERROR(ApplyTransition(transaction, before, JobTrigger::kExpired, now,
                                         "start_timeout passed", after));
  }
  return ids;
}

void SqliteJobStore::Submit(NewJob job, Done<SubmitResult> done) {
  Write<SubmitResult>(From::kClient, std::move(done),
                      [this, job = std::move(job)](Transaction& transaction) {
                        return SubmitNow(transaction, job);
                      });
}

void SqliteJobStore::FindNext(ReadyWorker worker, Done<std::optional<Job>> done) {
  Write<std::optional<Job>>(From::kServer, std::move(done),
                            [this, worker = std::move(worker)](Transaction& transaction) {
                              return FindNow(transaction.db, worker);
                            });
}

void SqliteJobStore::Claim(std::string job_id, std::string worker,
                           Done<std::optional<ClaimedAttempt>> done) {
  Write<std::optional<ClaimedAttempt>>(
      From::kServer, std::move(done),
      [this, job_id = std::move(job_id), worker = std::move(worker)](Transaction& transaction) {
        return ClaimNow(transaction, job_id, worker);
      });
}

void SqliteJobStore::RecordStats(AttemptRef ref, std::string stats, Done<Job> done) {
  Write<Job>(From::kServer, std::move(done),
             [ref = std::move(ref),
              stats = std::move(stats)](Transaction& transaction) -> absl::StatusOr<Job> {
               KINO_ASSIGN_OR_RETURN(const JobRow before, LoadAttemptRow(transaction.db, ref));
               JobRow after = before;
               if (!stats.empty()) after.job.stats = stats;
               KINO_RETURN_IF_ERROR(UpdateRow(transaction.db, before, after));
               return Complete(transaction.db, std::move(after));
             });
}

void SqliteJobStore::Commit(AttemptRef ref, Artifact artifact, std::string stats, Done<Job> done) {
  Write<Job>(
      From::kServer, std::move(done),
      [this, ref = std::move(ref), artifact = std::move(artifact), stats = std::move(stats)](
          Transaction& transaction) { return CommitNow(transaction, ref, artifact, stats); });
}

void SqliteJobStore::Fail(AttemptRef ref, AttemptFailure failure, Done<Job> done) {
  Write<Job>(From::kServer, std::move(done),
             [this, ref = std::move(ref), failure = std::move(failure)](Transaction& transaction) {
               return FailNow(transaction, ref, failure);
             });
}

void SqliteJobStore::Cancel(std::string tenant, std::string job_id, Done<Job> done) {
  Write<Job>(From::kClient, std::move(done),
             [this, tenant = std::move(tenant), job_id = std::move(job_id)](
                 Transaction& transaction) { return CancelNow(transaction, tenant, job_id); });
}

void SqliteJobStore::FailQueued(std::string job_id, absl::Status error, Done<Job> done) {
  Write<Job>(
      From::kServer, std::move(done),
      [this, job_id = std::move(job_id),
       error = std::move(error)](Transaction& transaction) -> absl::StatusOr<Job> {
        KINO_ASSIGN_OR_RETURN(const JobRow before, LoadRow(transaction.db, job_id));
        if (before.job.state != JobState::kQueued) {
          return absl::FailedPreconditionError(absl::StrCat(
              "job '", job_id, "' is ", JobStateName(before.job.state), ", want QUEUED"));
        }
        JobRow after = before;
        after.job.error = error;
        KINO_RETURN_IF_ERROR(ApplyTransition(transaction, before, JobTrigger::kFailed, clock_.Now(),
                                             std::string(error.message()), after));
        return Complete(transaction.db, std::move(after));
      });
}

void SqliteJobStore::ExpireDue(Done<std::vector<std::string>> done) {
  Write<std::vector<std::string>>(From::kServer, std::move(done), [this](Transaction& transaction) {
    return ExpireNow(transaction);
  });
}

void SqliteJobStore::Delete(std::string tenant, std::string job_id, Done<std::string> done) {
  Write<std::string>(
      From::kClient, std::move(done),
      [tenant = std::move(tenant),
       job_id = std::move(job_id)](Transaction& transaction) -> absl::StatusOr<std::string> {
        KINO_ASSIGN_OR_RETURN(const JobRow row, LoadTenantRow(transaction.db, tenant, job_id));
        if (!IsTerminal(row.job.state)) {
          return WithReason(absl::FailedPreconditionError(
                                absl::StrCat("job '", job_id, "' is ", JobStateName(row.job.state),
                                             ": cancel it before deleting it")),
                            kReasonJobNotEnded);
        }
        KINO_RETURN_IF_ERROR(transaction.db
                                 .Run("DELETE FROM jobs WHERE seq = ? AND state = ?", row.seq,
                                      static_cast<int>(row.job.state))
                                 .status());
        return row.job.artifact ? row.job.artifact->file_name : std::string();
      });
}

}  // namespace kino::scheduler
