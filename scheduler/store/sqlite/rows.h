// Rows of the SQLite store as values, and the one way a job's row changes.
// Works on the connection it is given, on that connection's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "scheduler/jobs/job.h"
#include "scheduler/jobs/state_machine.h"
#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/writer.h"

namespace kino::scheduler {

// A row of `jobs`. `job` lacks what other tables hold until Complete.
struct JobRow {
  int64_t seq = 0;
  Job job;
  int attempt = 0;                           // the last one's number
  std::string token;                         // the running one's, else empty
  std::optional<int64_t> start_deadline_us;  // while QUEUED
  std::optional<int64_t>
      start_left_us;           // while RUNNING: what start_timeout leaves for queueing again
  int uncounted_attempts = 0;  // those before it was last requeued
  std::optional<int64_t> expire_us{};  // of the artifact, where the job has a result_ttl
};

std::optional<int64_t> OptionalMicros(absl::Duration duration);  // none for infinite
int64_t SaturatingMicros(absl::Time time);

// shape, steps, flops, from `column` on.
JobWork ReadWork(const Statement& row, int column);

absl::Status NoSuchJob(const std::string& id);

// NOT_FOUND.
absl::StatusOr<JobRow> LoadRow(Connection& db, const std::string& id);
// NOT_FOUND also when `tenant` is not the job's.
absl::StatusOr<JobRow> LoadTenantRow(Connection& db, const std::string& tenant,
                                     const std::string& id);
// ABORTED (STALE_ATTEMPT) unless the job is RUNNING that attempt under that token.
absl::StatusOr<JobRow> LoadAttemptRow(Connection& db, const AttemptRef& ref);

// The whole job: the row and what request, labels, attempts and job_assets hold of it.
absl::StatusOr<Job> LoadWhole(Connection& db, JobRow row);

// Changes `before` (as loaded in this transaction) into `after` by `trigger`: state and numbers by
// the table of transitions, the other mutable columns as in `after`, one conditional UPDATE naming
// the state, attempt, token and cancel mark that `before` has, and the numbered event. INTERNAL
// where the table has no such transition.
absl::Status ApplyTransition(Transaction& transaction, const JobRow& before, JobTrigger trigger,
                             absl::Time now, const std::string& reason, JobRow& after);

// The same without a change of state: an event that says RUNNING again, with a reason.
absl::Status ApplyMark(Transaction& transaction, const JobRow& before, absl::Time now,
                       const std::string& reason, JobRow& after);

// Writes the mutable columns only; no event.
absl::Status UpdateRow(Connection& db, const JobRow& before, const JobRow& after);

absl::Status AppendEvent(Transaction& transaction, const JobRow& row, absl::Time now,
                         const std::string& reason);

}  // namespace kino::scheduler
