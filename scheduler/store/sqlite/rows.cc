#include "scheduler/store/sqlite/rows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

namespace {

constexpr char kSelectById[] =
    "SELECT seq, id, tenant, model, priority, request_id, fingerprint, server_version, create_us, "
    "start_timeout_us, run_timeout_us, state, state_number, attempt, token, cancel_requested, "
    "start_us, end_us, start_deadline_us, start_left_us, not_before_us, crashes, out_of_memory, "
    "interruptions, error_code, error_message, error_reason, artifact_file, artifact_type, "
    "artifact_bytes, artifact_sha256, artifact_width, artifact_height, artifact_frames, "
    "artifact_fps, "
    "artifact_purged, stats, unclean_stops, uncounted_attempts, result_ttl_us, expire_us, shape, "
    "steps, flops FROM jobs WHERE id = ?";

absl::Duration DurationFrom(const std::optional<int64_t>& micros) {
  return micros ? absl::Microseconds(*micros) : absl::InfiniteDuration();
}

std::optional<absl::Time> TimeFrom(const std::optional<int64_t>& micros) {
  if (!micros) return std::nullopt;
  return absl::FromUnixMicros(*micros);
}

std::optional<int64_t> MicrosFrom(const std::optional<absl::Time>& time) {
  if (!time) return std::nullopt;
  return SaturatingMicros(*time);
}

absl::Status StatusFrom(int code, const std::string& message) {
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

JobRow ReadRow(const Statement& row) {
  int column = 0;
  JobRow result;
  Job& job = result.job;
  result.seq = row.Int64(column++);
  job.id = row.Text(column++);
  job.tenant = row.Text(column++);
  job.model = row.Text(column++);
  job.priority = static_cast<Priority>(row.Int(column++));
  job.request_id = row.Text(column++);
  job.request_fingerprint = row.Text(column++);
  job.server_version = row.Text(column++);
  job.create_time = absl::FromUnixMicros(row.Int64(column++));
  job.start_timeout = DurationFrom(row.OptionalInt64(column++));
  job.run_timeout = DurationFrom(row.OptionalInt64(column++));
  job.state = static_cast<JobState>(row.Int(column++));
  job.state_number = row.Int64(column++);
  result.attempt = row.Int(column++);
  result.token = row.Text(column++);
  job.cancel_requested = row.Int(column++) != 0;
  job.start_time = TimeFrom(row.OptionalInt64(column++));
  job.end_time = TimeFrom(row.OptionalInt64(column++));
  result.start_deadline_us = row.OptionalInt64(column++);
  result.start_left_us = row.OptionalInt64(column++);
  job.retry_not_before = TimeFrom(row.OptionalInt64(column++));
  job.failures.crashes = row.Int(column++);
  job.failures.out_of_memory = row.Int(column++);
  job.failures.interruptions = row.Int(column++);
  const int error_code = row.Int(column++);
  job.error = StatusFrom(error_code, row.Text(column++));
  const std::string reason = row.Text(column++);
  if (!reason.empty()) job.error = WithReason(job.error, reason.c_str());
  if (!row.IsNull(column)) {
    Artifact& artifact = job.artifact.emplace();
    artifact.file_name = row.Text(column);
    artifact.content_type = row.Text(column + 1);
    artifact.size_bytes = row.Int64(column + 2);
    artifact.sha256 = row.Text(column + 3);
    artifact.width = row.Int(column + 4);
    artifact.height = row.Int(column + 5);
    artifact.num_frames = row.Int(column + 6);
    artifact.fps = row.Double(column + 7);
  }
  column += 8;
  job.artifact_purged = row.Int(column++) != 0;
  job.stats = row.Text(column++);
  job.failures.unclean_stops = row.Int(column++);
  result.uncounted_attempts = row.Int(column++);
  const std::optional<int64_t> ttl_us = row.OptionalInt64(column++);
  if (ttl_us) job.result_ttl = absl::Microseconds(*ttl_us);
  result.expire_us = row.OptionalInt64(column++);
  job.work = ReadWork(row, column);
  return result;
}

absl::Status StaleAttempt(const AttemptRef& ref, const std::string& found) {
  return WithReason(absl::AbortedError(absl::StrCat("attempt ", ref.attempt, " of job '",
                                                    ref.job_id, "' is not running: ", found)),
                    kReasonStaleAttempt);
}

}  // namespace

std::optional<int64_t> OptionalMicros(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return std::nullopt;
  return absl::ToInt64Microseconds(duration);
}

int64_t SaturatingMicros(absl::Time time) { return absl::ToUnixMicros(time); }

JobWork ReadWork(const Statement& row, int column) {
  return {.shape = row.Text(column), .steps = row.Int(column + 1), .flops = row.Double(column + 2)};
}

absl::Status NoSuchJob(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("there is no job '", id, "'"));
}

absl::StatusOr<JobRow> LoadRow(Connection& db, const std::string& id) {
  KINO_ASSIGN_OR_RETURN(Statement row, db.Query(kSelectById, id));
  KINO_ASSIGN_OR_RETURN(const bool has_row, row.Step());
  if (!has_row) return NoSuchJob(id);
  return ReadRow(row);
}

absl::StatusOr<JobRow> LoadTenantRow(Connection& db, const std::string& tenant,
                                     const std::string& id) {
  KINO_ASSIGN_OR_RETURN(JobRow row, LoadRow(db, id));
  if (row.job.tenant != tenant) return NoSuchJob(id);
  return row;
}

absl::StatusOr<JobRow> LoadAttemptRow(Connection& db, const AttemptRef& ref) {
  absl::StatusOr<JobRow> row = LoadRow(db, ref.job_id);
  if (absl::IsNotFound(row.status())) return StaleAttempt(ref, "there is no such job");
  if (!row.ok()) return row;
  if (row->job.state != JobState::kRunning) {
    return StaleAttempt(ref, absl::StrCat("the job is ", JobStateName(row->job.state)));
  }
  if (row->attempt != ref.attempt) {
    return StaleAttempt(ref, absl::StrCat("attempt ", row->attempt, " is"));
  }
  if (row->token != ref.token) return StaleAttempt(ref, "the token is not its own");
  return row;
}

absl::StatusOr<Job> LoadWhole(Connection& db, JobRow row) {
  Job& job = row.job;
  {
    KINO_ASSIGN_OR_RETURN(Statement request,
                          db.Query("SELECT request FROM requests WHERE job = ?", row.seq));
    KINO_ASSIGN_OR_RETURN(const bool has_row, request.Step());
    if (!has_row) return absl::DataLossError(absl::StrCat("job '", job.id, "' has no request"));
    job.request = request.Text(0);
  }
  KINO_ASSIGN_OR_RETURN(Statement labels,
                        db.Query("SELECT key, value FROM labels WHERE job = ?", row.seq));
  while (true) {
    KINO_ASSIGN_OR_RETURN(const bool has_row, labels.Step());
    if (!has_row) break;
    job.labels[labels.Text(0)] = labels.Text(1);
  }
  KINO_ASSIGN_OR_RETURN(
      Statement assets,
      db.Query("SELECT asset FROM job_assets WHERE job = ? ORDER BY asset", row.seq));
  while (true) {
    KINO_ASSIGN_OR_RETURN(const bool has_row, assets.Step());
    if (!has_row) break;
    job.asset_ids.push_back(assets.Text(0));
  }
  KINO_ASSIGN_OR_RETURN(
      Statement attempts,
      db.Query("SELECT number, token, worker, start_us, end_us, cause, error_code, error_message, "
               "evidence FROM attempts WHERE job = ? ORDER BY number DESC LIMIT ?",
               row.seq, kAttemptsTold));
  while (true) {
    KINO_ASSIGN_OR_RETURN(const bool has_row, attempts.Step());
    if (!has_row) break;
    Attempt& attempt = job.attempts.emplace_back();
    attempt.number = attempts.Int(0);
    attempt.token = attempts.Text(1);
    attempt.worker = attempts.Text(2);
    attempt.start_time = absl::FromUnixMicros(attempts.Int64(3));
    attempt.end_time = TimeFrom(attempts.OptionalInt64(4));
    attempt.cause = static_cast<FailureCause>(attempts.Int(5));
    attempt.error = StatusFrom(attempts.Int(6), attempts.Text(7));
    attempt.evidence = attempts.Text(8);
  }
  std::reverse(job.attempts.begin(), job.attempts.end());
  return std::move(row.job);
}

absl::Status UpdateRow(Connection& db, const JobRow& before, const JobRow& after) {
  const Job& job = after.job;
  const std::optional<Artifact>& artifact = job.artifact;
  const auto artifact_field = [&](auto member) {
    using Field = std::decay_t<decltype((*artifact).*member)>;
    return artifact ? std::optional<Field>((*artifact).*member) : std::nullopt;
  };
  const std::string error_message(job.error.message());
  KINO_ASSIGN_OR_RETURN(
      const int64_t changed,
      db.Run("UPDATE jobs SET state = ?, state_number = ?, attempt = ?, token = ?, "
             "cancel_requested = ?, start_us = ?, end_us = ?, start_deadline_us = ?, "
             "start_left_us = ?, not_before_us = ?, crashes = ?, out_of_memory = ?, "
             "interruptions = ?, error_code = ?, error_message = ?, error_reason = ?, "
             "artifact_file = ?, artifact_type = ?, artifact_bytes = ?, artifact_sha256 = ?, "
             "artifact_width = ?, "
             "artifact_height = ?, artifact_frames = ?, artifact_fps = ?, artifact_purged = ?, "
             "stats = ?, unclean_stops = ?, uncounted_attempts = ?, expire_us = ? "
             "WHERE seq = ? AND state = ? AND attempt = ? AND token = ? AND cancel_requested = ?",
             static_cast<int>(job.state), job.state_number, after.attempt, after.token,
             job.cancel_requested, MicrosFrom(job.start_time), MicrosFrom(job.end_time),
             after.start_deadline_us, after.start_left_us, MicrosFrom(job.retry_not_before),
             job.failures.crashes, job.failures.out_of_memory, job.failures.interruptions,
             static_cast<int>(job.error.code()), error_message, ReasonOf(job.error),
             artifact_field(&Artifact::file_name), artifact_field(&Artifact::content_type),
             artifact_field(&Artifact::size_bytes), artifact_field(&Artifact::sha256),
             artifact_field(&Artifact::width), artifact_field(&Artifact::height),
             artifact_field(&Artifact::num_frames), artifact_field(&Artifact::fps),
             job.artifact_purged, Blob{job.stats}, job.failures.unclean_stops,
             after.uncounted_attempts, after.expire_us, before.seq,
             static_cast<int>(before.job.state), before.attempt, before.token,
             before.job.cancel_requested));
  if (changed != 1) {
    return WithReason(
        absl::AbortedError(absl::StrCat("job '", before.job.id, "' changed in between")),
        kReasonStaleAttempt);
  }
  return absl::OkStatus();
}

absl::Status AppendEvent(Transaction& transaction, const JobRow& row, absl::Time now,
                         const std::string& reason) {
  const Job& job = row.job;
  KINO_RETURN_IF_ERROR(transaction.db
                           .Run("INSERT INTO events(job, number, state, attempt, time_us, reason) "
                                "VALUES (?, ?, ?, ?, ?, ?)",
                                row.seq, job.state_number, static_cast<int>(job.state), row.attempt,
                                SaturatingMicros(now), reason)
                           .status());
  transaction.changes.push_back({.cursor = transaction.db.last_insert_rowid(),
                                 .job_id = job.id,
                                 .event = {.number = job.state_number,
                                           .state = job.state,
                                           .attempt = row.attempt,
                                           .time = absl::FromUnixMicros(SaturatingMicros(now)),
                                           .reason = reason},
                                 .queued = {}});
  if (job.state == JobState::kQueued) {
    QueuedJob& queued = transaction.changes.back().queued.emplace();
    queued = {.id = job.id,
              .model = job.model,
              .priority = job.priority,
              .order = row.seq,
              .tenant = job.tenant,
              .work = job.work};
    queued.retry_not_before = job.retry_not_before.value_or(absl::InfinitePast());
    if (row.start_deadline_us) queued.start_deadline = absl::FromUnixMicros(*row.start_deadline_us);
  }
  return absl::OkStatus();
}

absl::Status ApplyTransition(Transaction& transaction, const JobRow& before, JobTrigger trigger,
                             absl::Time now, const std::string& reason, JobRow& after) {
  const std::optional<JobState> next = NextState(before.job.state, trigger);
  if (!next) {
    return absl::InternalError(absl::StrCat("job '", before.job.id, "' is ",
                                            JobStateName(before.job.state), " and cannot be ",
                                            JobTriggerName(trigger)));
  }
  after.job.state = *next;
  after.job.state_number = before.job.state_number + 1;
  if (*next != JobState::kRunning) after.token.clear();
  if (*next != JobState::kQueued) {
    after.start_deadline_us.reset();
    after.job.retry_not_before.reset();
  }
  if (IsTerminal(*next)) {
    after.job.end_time = now;
    after.start_left_us.reset();
  }
  KINO_RETURN_IF_ERROR(UpdateRow(transaction.db, before, after));
  return AppendEvent(transaction, after, now, reason);
}

absl::Status ApplyMark(Transaction& transaction, const JobRow& before, absl::Time now,
                       const std::string& reason, JobRow& after) {
  after.job.state_number = before.job.state_number + 1;
  KINO_RETURN_IF_ERROR(UpdateRow(transaction.db, before, after));
  return AppendEvent(transaction, after, now, reason);
}

}  // namespace kino::scheduler
