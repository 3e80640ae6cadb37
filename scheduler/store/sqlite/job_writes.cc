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
                        const absl::Status& error, const std::string& evidence = {}) {
  const std::string message(error.message());
  KINO_ASSIGN_OR_RETURN(
      const int64_t changed,
      db.Run("UPDATE attempts SET end_us = ?, cause = ?, error_code = ?, error_message = ?, "
             "evidence = ? WHERE job = ? AND number = ? AND end_us IS NULL",
             SaturatingMicros(now), static_cast<int>(cause), static_cast<int>(error.code()),
             message, Blob{evidence}, row.seq, row.attempt));
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

// The first of the job's assets that is not there any more, or "".
absl::StatusOr<std::string> FindGoneAsset(Connection& db, const JobRow& row) {
  KINO_ASSIGN_OR_RETURN(
      Statement gone, db.Query("SELECT asset FROM job_assets WHERE job = ? AND NOT EXISTS "
                               "(SELECT 1 FROM assets WHERE assets.id = job_assets.asset) LIMIT 1",
                               row.seq));
  KINO_ASSIGN_OR_RETURN(const bool is_gone, gone.Step());
  return is_gone ? gone.Text(0) : std::string();
}

// What the end of the job left is taken back; its start_timeout begins anew.
void ForgetEnd(absl::Time now, JobRow& row) {
  row.job.error = absl::OkStatus();
  row.job.end_time.reset();
  if (row.job.start_timeout != absl::InfiniteDuration()) {
    row.start_deadline_us = SaturatingMicros(now + row.job.start_timeout);
  }
}

// Of the tenant no more are counted than its limit.
absl::StatusOr<QueuedJobs> CountQueued(Connection& db, const AdmissionLimits& limits,
                                       const std::string& tenant) {
  QueuedJobs queued;
  KINO_ASSIGN_OR_RETURN(Statement all,
                        db.Query("SELECT coalesce(sum(jobs), 0) FROM job_counts WHERE state = 1"));
  KINO_ASSIGN_OR_RETURN(const bool has_all, all.Step());
  if (has_all) queued.all = all.Int64(0);
  if (limits.max_tenant_queued_jobs == 0) return queued;
  KINO_ASSIGN_OR_RETURN(Statement own,
                        db.Query("SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant = ? AND "
                                 "state = 1 LIMIT ?)",
                                 tenant, limits.max_tenant_queued_jobs));
  KINO_ASSIGN_OR_RETURN(const bool has_own, own.Step());
  if (has_own) queued.of_tenant = own.Int64(0);
  return queued;
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
             "interruptions, error_code, error_message, artifact_purged, stats, result_ttl_us, "
             "shape, steps, flops) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 1, 0, '', 0, 0, 0, "
             "0, 0, '', 0, x'', ?, ?, ?, ?)",
             id, job.tenant, job.model, static_cast<int>(job.priority), request_id,
             Blob{job.request_fingerprint}, job.server_version, SaturatingMicros(now),
             OptionalMicros(job.start_timeout), OptionalMicros(job.run_timeout), start_deadline,
             job.result_ttl ? OptionalMicros(*job.result_ttl) : std::nullopt, job.work.shape,
             job.work.steps, job.work.flops)
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
      KINO_ASSIGN_OR_RETURN(Job found, LoadWhole(db, std::move(row)));
      return SubmitResult{.job = std::move(found), .is_new = false};
    }
  }
  KINO_ASSIGN_OR_RETURN(const QueuedJobs queued, CountQueued(db, options_.admission, job.tenant));
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
  KINO_ASSIGN_OR_RETURN(Job made, LoadWhole(db, std::move(row)));
  return SubmitResult{.job = std::move(made), .is_new = true};
}

absl::StatusOr<std::optional<ClaimedAttempt>> SqliteJobStore::ClaimNow(Transaction& transaction,
                                                                       const std::string& job_id,
                                                                       const std::string& worker,
                                                                       int64_t process_id,
                                                                       absl::Duration start_left) {
  Connection& db = transaction.db;
  const absl::Time now = clock_.Now();
  const int64_t now_us = SaturatingMicros(now);
  const absl::StatusOr<JobRow> found = LoadRow(db, job_id);
  if (absl::IsNotFound(found.status())) return std::nullopt;
  if (!found.ok()) return found.status();
  const JobRow& before = *found;
  if (before.job.state != JobState::kQueued) return std::nullopt;
  JobRow after = before;
  after.attempt = before.attempt + 1;
  after.token = MakeToken(random_);
  if (!after.job.start_time) after.job.start_time = now;
  if (before.start_deadline_us) {
    after.start_left_us = absl::ToInt64Microseconds(
        std::clamp(start_left, absl::ZeroDuration(), before.job.start_timeout));
  }
  KINO_RETURN_IF_ERROR(ApplyTransition(transaction, before, JobTrigger::kClaimed, now, "", after));
  KINO_RETURN_IF_ERROR(
      db.Run("INSERT INTO attempts(job, number, token, worker, process_id, start_us, cause, "
             "error_code, error_message) VALUES (?, ?, ?, ?, ?, ?, 0, 0, '')",
             after.seq, after.attempt, after.token, worker, process_id, now_us)
          .status());
  ClaimedAttempt claimed;
  claimed.ref = {.job_id = after.job.id, .attempt = after.attempt, .token = after.token};
  KINO_ASSIGN_OR_RETURN(claimed.job, LoadWhole(db, std::move(after)));
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
    return LoadWhole(db, std::move(after));
  }
  after.job.artifact = artifact;
  if (after.job.result_ttl) after.expire_us = SaturatingMicros(now + *after.job.result_ttl);
  KINO_RETURN_IF_ERROR(EndAttempt(db, before, now, FailureCause::kNone, absl::OkStatus()));
  KINO_RETURN_IF_ERROR(
      ApplyTransition(transaction, before, JobTrigger::kCommitted, now, "", after));
  return LoadWhole(db, std::move(after));
}

absl::StatusOr<Job> SqliteJobStore::FailNow(Transaction& transaction, const AttemptRef& ref,
                                            const AttemptFailure& failure) {
  Connection& db = transaction.db;
  KINO_ASSIGN_OR_RETURN(const JobRow before, LoadAttemptRow(db, ref));
  const absl::Time now = clock_.Now();
  JobRow after = before;
  if (!failure.stats.empty()) after.job.stats = failure.stats;
  after.job.failures = CountFailure(before.job.failures, failure.cause);
  const RetryVerdict verdict =
      DecideAfterFailure(options_.retry,
                         {.number = ref.attempt - before.uncounted_attempts,
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
  KINO_RETURN_IF_ERROR(EndAttempt(db, before, now, failure.cause, failure.error, failure.evidence));
  KINO_RETURN_IF_ERROR(
      ApplyTransition(transaction, before, verdict.trigger, now, verdict.reason, after));
  return LoadWhole(db, std::move(after));
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
  return LoadWhole(transaction.db, std::move(after));
}

absl::StatusOr<Job> SqliteJobStore::EndQueuedNow(Transaction& transaction,
                                                 const std::string& job_id, JobTrigger trigger,
                                                 const absl::Status& error) {
  KINO_ASSIGN_OR_RETURN(const JobRow before, LoadRow(transaction.db, job_id));
  if (before.job.state != JobState::kQueued) {
    return absl::FailedPreconditionError(
        absl::StrCat("job '", job_id, "' is ", JobStateName(before.job.state), ", want QUEUED"));
  }
  JobRow after = before;
  after.job.error = error;
  if (trigger == JobTrigger::kExpired) {
    after.job.error = absl::DeadlineExceededError(
        absl::StrCat("not started within ", absl::FormatDuration(before.job.start_timeout)));
  }
  const std::string reason =
      trigger == JobTrigger::kExpired ? "start_timeout passed" : std::string(error.message());
  KINO_RETURN_IF_ERROR(ApplyTransition(transaction, before, trigger, clock_.Now(), reason, after));
  return LoadWhole(transaction.db, std::move(after));
}

absl::StatusOr<Job> SqliteJobStore::RequeueNow(Transaction& transaction, const std::string& tenant,
                                               const std::string& job_id) {
  Connection& db = transaction.db;
  KINO_ASSIGN_OR_RETURN(const JobRow before, LoadTenantRow(db, tenant, job_id));
  const auto refuse = [&](const std::string& why) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("job '", job_id, "' cannot run again: ", why)),
        kReasonJobNotRequeuable);
  };
  if (!NextState(before.job.state, JobTrigger::kRequeued)) {
    return refuse(absl::StrCat("it is ", JobStateName(before.job.state),
                               ", expected FAILED, QUARANTINED or EXPIRED"));
  }
  KINO_ASSIGN_OR_RETURN(const std::string gone, FindGoneAsset(db, before));
  if (!gone.empty()) return refuse(absl::StrCat("its asset '", gone, "' is gone"));
  const absl::Time now = clock_.Now();
  JobRow after = before;
  after.job.failures = {};
  after.uncounted_attempts = before.attempt;
  after.job.cancel_requested = false;
  ForgetEnd(now, after);
  KINO_RETURN_IF_ERROR(
      ApplyTransition(transaction, before, JobTrigger::kRequeued, now, "requeued", after));
  return LoadWhole(db, std::move(after));
}

absl::StatusOr<int> SqliteJobStore::ForgiveNow(Transaction& transaction,
                                               const std::vector<AttemptRef>& attempts) {
  Connection& db = transaction.db;
  int forgiven = 0;
  for (const AttemptRef& ref : attempts) {
    const absl::StatusOr<JobRow> found = LoadRow(db, ref.job_id);
    if (absl::IsNotFound(found.status())) continue;
    if (!found.ok()) return found.status();
    // Those from before it was requeued count no more anyway.
    if (ref.attempt <= found->uncounted_attempts) continue;
    KINO_ASSIGN_OR_RETURN(
        const int64_t changed,
        db.Run("UPDATE attempts SET forgiven = 1 WHERE job = ? AND number = ? AND token = ? "
               "AND forgiven = 0 AND cause IN (?, ?, ?)",
               found->seq, ref.attempt, ref.token, static_cast<int>(FailureCause::kCrash),
               static_cast<int>(FailureCause::kHang), static_cast<int>(FailureCause::kDeviceLost)));
    if (changed == 0) continue;
    ++forgiven;
    const JobRow& before = *found;
    JobRow after = before;
    after.job.failures.crashes = std::max(0, before.job.failures.crashes - 1);
    ++after.job.failures.interruptions;
    // Unclean stops may have quarantined it as well: those were no device's doing.
    const bool is_to_run = before.job.state == JobState::kQuarantined &&
                           after.job.failures.crashes < options_.retry.max_crashes &&
                           after.job.failures.unclean_stops < options_.retry.max_unclean_stops;
    KINO_ASSIGN_OR_RETURN(const std::string gone, FindGoneAsset(db, before));
    if (!is_to_run || !gone.empty()) {
      KINO_RETURN_IF_ERROR(UpdateRow(db, before, after));
      continue;
    }
    const absl::Time now = clock_.Now();
    ForgetEnd(now, after);
    KINO_RETURN_IF_ERROR(ApplyTransition(transaction, before, JobTrigger::kRequeued, now,
                                         "the device was to blame", after));
  }
  return forgiven;
}

void SqliteJobStore::Submit(NewJob job, Done<SubmitResult> done) {
  Write<SubmitResult>(From::kClient, std::move(done),
                      [this, job = std::move(job)](Transaction& transaction) {
                        return SubmitNow(transaction, job);
                      });
}

void SqliteJobStore::Claim(std::string job_id, std::string worker, int64_t process_id,
                           absl::Duration start_left, Done<std::optional<ClaimedAttempt>> done) {
  Write<std::optional<ClaimedAttempt>>(
      From::kServer, std::move(done),
      [this, job_id = std::move(job_id), worker = std::move(worker), process_id,
       start_left](Transaction& transaction) {
        return ClaimNow(transaction, job_id, worker, process_id, start_left);
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
               return LoadWhole(transaction.db, std::move(after));
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
      [this, job_id = std::move(job_id), error = std::move(error)](Transaction& transaction) {
        return EndQueuedNow(transaction, job_id, JobTrigger::kFailed, error);
      });
}

void SqliteJobStore::Expire(std::string job_id, Done<Job> done) {
  Write<Job>(From::kServer, std::move(done),
             [this, job_id = std::move(job_id)](Transaction& transaction) {
               return EndQueuedNow(transaction, job_id, JobTrigger::kExpired, absl::OkStatus());
             });
}

void SqliteJobStore::Requeue(std::string tenant, std::string job_id, Done<Job> done) {
  Write<Job>(From::kClient, std::move(done),
             [this, tenant = std::move(tenant), job_id = std::move(job_id)](
                 Transaction& transaction) { return RequeueNow(transaction, tenant, job_id); });
}

void SqliteJobStore::ForgiveCrashes(std::vector<AttemptRef> attempts, Done<int> done) {
  Write<int>(From::kServer, std::move(done),
             [this, attempts = std::move(attempts)](Transaction& transaction) {
               return ForgiveNow(transaction, attempts);
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
        transaction.has_erased = true;
        return row.job.artifact ? row.job.artifact->file_name : std::string();
      });
}

}  // namespace kino::scheduler
