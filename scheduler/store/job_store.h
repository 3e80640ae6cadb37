// The durable memory of the scheduler: jobs, attempts, events, assets. Nothing about a job lives
// elsewhere.
//
// Thread-safe. Writes come in two forms. The callback form never blocks: the operation is queued,
// and `done` runs on the store's thread after the transaction is on disk (or refused), in the order
// the operations were queued; only where too many clients' operations wait it runs at once on the
// caller's thread, with UNAVAILABLE. `done` must be quick and must not call a blocking write (that
// would wait for its own thread). The form without callback blocks until then; it is for tests and
// for threads that may wait. Reads block for one or a few indexed look-ups, never for a writer, and
// see every write whose `done` has begun.
//
// An attempt's operations name (job, attempt, token) and fail with ABORTED, reason STALE_ATTEMPT
// (scheduler/status.h), unless the job is RUNNING that very attempt. All operations may fail with
// RESOURCE_EXHAUSTED (reason DISK_FULL) or UNAVAILABLE (STORE_UNAVAILABLE); nothing has changed
// then, and the store works again once the disk does. Where a tenant is given, a foreign job or
// asset is NOT_FOUND.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "scheduler/jobs/event.h"
#include "scheduler/jobs/job.h"
#include "scheduler/jobs/retry.h"
#include "scheduler/queue/admission.h"

namespace kino::scheduler {

template <typename T>
using Done = absl::AnyInvocable<void(absl::StatusOr<T>)>;

struct StoreOptions {
  RetryPolicy retry{};
  AdmissionLimits admission{};
  // What an operator should know. Called from any of the store's threads.
  std::function<void(const std::string&)> log = [](const std::string&) {};
  // How long a transaction took until it was on disk. Called on the thread that wrote it.
  std::function<void(absl::Duration)> committed = [](absl::Duration) {};
  // What a look through the whole file found: OK, DATA_LOSS (STORE_DAMAGED), or why it could not be
  // made. Called once, on a thread of the store's while the store serves; not at all where the last
  // store was closed in peace, or this one is closed before the look ends. Must not use the store.
  std::function<void(const absl::Status&)> checked = [](const absl::Status&) {};
};

struct SubmitResult {
  Job job{};
  bool is_new = true;  // false: request_id named a job that was there already
};

// A lease: what a worker needs to run one attempt.
struct ClaimedAttempt {
  AttemptRef ref{};
  Job job{};
};

// The end of an attempt without a result.
struct AttemptFailure {
  FailureCause cause = FailureCause::kInternal;
  absl::Status error{};    // not OK
  std::string stats{};     // empty: keep what the job has
  std::string evidence{};  // opaque, becomes the attempt's
};

struct RunningAttempt {
  AttemptRef ref{};
  std::string tenant{};
  std::string worker{};
  int64_t process_id = 0;  // of the worker
  absl::Time start_time{};
  absl::Duration run_timeout = absl::InfiniteDuration();
  bool cancel_requested = false;
};

struct JobFilter {
  std::string tenant{};                         // empty: all
  std::vector<JobState> states{};               // empty: all
  std::string model{};                          // empty: all
  std::map<std::string, std::string> labels{};  // every pair must match
};

struct JobPage {
  std::vector<Job> jobs{};        // newest first; may be empty before the last page
  std::string next_page_token{};  // empty on the last page
};

struct PurgedJobs {
  int64_t jobs = 0;                  // so many are gone
  std::vector<std::string> files{};  // to unlink: their artifacts that were not purged before
};

struct QueueLoad {
  std::map<Priority, int64_t> queued{};  // all three classes
  std::map<JobState, int64_t> jobs{};    // all states, rows that exist now
};

// Gets the changes of one transaction, in cursor order, on the store's thread, after the commit and
// before the `done`s of its operations. Same duties as a `done`.
using ChangeListener = std::function<void(const std::vector<Change>&)>;

class JobStore {
 public:
  // No call may be in progress. Queued writes are carried out first.
  virtual ~JobStore() = default;

  // --- Jobs. ---

  // ALREADY_EXISTS (REQUEST_ID_REUSED): the tenant used request_id for a request with another
  // fingerprint. NOT_FOUND: an asset. RESOURCE_EXHAUSTED (QUEUE_FULL, REQUEST_TOO_LARGE).
  // INVALID_ARGUMENT: malformed record.
  virtual void Submit(NewJob job, Done<SubmitResult> done) = 0;

  // Leases the job to `worker`: RUNNING, next attempt number, a new token. Nothing when it cannot
  // start (any more): it has gone, or is not QUEUED. Whose turn it is, the caller knows.
  // `process_id` is the worker's: it tells a later frontend whether the worker has died since.
  // `start_left`: how much of its start_timeout is left, for when it is queued again; the caller
  // knows it on a clock that nobody sets. More than start_timeout, such as infinite: all of it.
  virtual void Claim(std::string job_id, std::string worker, int64_t process_id,
                     absl::Duration start_left, Done<std::optional<ClaimedAttempt>> done) = 0;

  // The attempt has begun to compute; `stats` (opaque, such as the plan) replaces the job's unless
  // it is empty.
  virtual void RecordStats(AttemptRef ref, std::string stats, Done<Job> done) = 0;

  // One transaction makes the job SUCCEEDED and names its artifact. REQUIRES: the file and its
  // folder are fsynced. Where cancelling was asked for before, the job becomes CANCELLED instead
  // and the artifact is not taken: look at the returned job's state, and remove the file unless it
  // is SUCCEEDED.
  virtual void Commit(AttemptRef ref, Artifact artifact, std::string stats, Done<Job> done) = 0;

  // Ends the attempt. The returned job is QUEUED (runs again, perhaps after retry_not_before),
  // FAILED, QUARANTINED, or CANCELLED where cancelling was asked for. Lost workers' attempts end
  // this way too (kLeaseLost, kCrash, kHang).
  virtual void Fail(AttemptRef ref, AttemptFailure failure, Done<Job> done) = 0;

  // A QUEUED job is CANCELLED; a RUNNING one is marked durably (its attempt is to be stopped by the
  // caller); an ended one stays as it is. NOT_FOUND.
  virtual void Cancel(std::string tenant, std::string job_id, Done<Job> done) = 0;

  // Ends a QUEUED job that cannot be run (any more), such as one whose model is gone from the
  // configuration, or which fits no worker. No attempt is counted. NOT_FOUND; FAILED_PRECONDITION
  // when it is not QUEUED.
  virtual void FailQueued(std::string job_id, absl::Status error, Done<Job> done) = 0;

  // The QUEUED job's start_timeout has passed: EXPIRED. NOT_FOUND; FAILED_PRECONDITION when it is
  // not QUEUED.
  virtual void Expire(std::string job_id, Done<Job> done) = 0;

  // Lets a FAILED, QUARANTINED or EXPIRED job run again, as if nothing had failed: QUEUED at its
  // old place, with its start_timeout anew. Its attempts stay. NOT_FOUND; FAILED_PRECONDITION
  // (JOB_NOT_REQUEUABLE) in another state, or when an asset it needs is gone.
  virtual void Requeue(std::string tenant, std::string job_id, Done<Job> done) = 0;

  // These attempts' crashes were a device's doing, not their jobs': they count no more, and a job
  // that is QUARANTINED for them is QUEUED again. Attempts that are no crashes, or were forgiven
  // before, are passed over.
  virtual void ForgiveCrashes(std::vector<AttemptRef> attempts, Done<int> done) = 0;

  // Removes an ended job with its events and attempts. The artifact file to unlink, or "".
  // NOT_FOUND; FAILED_PRECONDITION (JOB_NOT_ENDED).
  virtual void Delete(std::string tenant, std::string job_id, Done<std::string> done) = 0;

  // Marks artifacts as purged, at most `limit`: those of jobs whose own result_ttl has passed, and
  // those of jobs without one that ended before `ended_before`. The jobs stay SUCCEEDED. The files
  // to unlink.
  virtual void PurgeResults(absl::Time ended_before, int limit,
                            Done<std::vector<std::string>> done) = 0;

  // Removes jobs that ended before `ended_before`, the oldest first and at most `limit`, as Delete
  // does. Their request_ids are free again. Fewer than `limit`: there are no more.
  virtual void PurgeJobs(absl::Time ended_before, int limit, Done<PurgedJobs> done) = 0;

  virtual absl::StatusOr<Job> Get(const std::string& tenant, const std::string& job_id) = 0;
  // Any tenant's; for the server's own use.
  virtual absl::StatusOr<Job> GetAnyTenant(const std::string& job_id) = 0;
  // The tenant's job that was submitted under `request_id`, if there is one. Never under "".
  virtual absl::StatusOr<std::optional<Job>> FindByRequestId(const std::string& tenant,
                                                             const std::string& request_id) = 0;

  // Newest first. `page_token` is the last page's next_page_token with the same filter; jobs
  // submitted in between neither repeat nor hide any. INVALID_ARGUMENT: not a token of ours.
  // `page_size` 1..1000. A page ends before the job with which its requests and stats would exceed
  // `max_bytes`, yet holds one job where there is one. It also ends where the search has looked at
  // much without a match: go on until next_page_token is empty.
  virtual absl::StatusOr<JobPage> List(const JobFilter& filter, int page_size,
                                       const std::string& page_token,
                                       int64_t max_bytes = INT64_MAX) = 0;

  // OK while `ref` is the running attempt of its job; else as for an attempt's operations.
  virtual absl::Status CheckAttempt(const AttemptRef& ref) = 0;

  // Every RUNNING job's attempt: what a registry adopts at start. Their partial files are live,
  // too.
  virtual absl::StatusOr<std::vector<RunningAttempt>> RunningAttempts() = 0;

  // --- Queue. ---

  // Every QUEUED job, in the order of the policy: what a JobQueue starts with. Costs a step for
  // each: for one shared view of the queue, not for each who asks. The end of a back-off that
  // another wall clock wrote, further away than any, is left out.
  virtual absl::StatusOr<std::vector<QueuedJob>> Queue() = 0;
  virtual absl::StatusOr<QueueLoad> Load() = 0;

  // Bytes of the artifacts and assets that each tenant has; who has none is left out. Partial files
  // of running attempts and uploads are not among them.
  virtual absl::StatusOr<std::map<std::string, int64_t>> DiskUse() = 0;

  // --- Events. ---

  // Events of a job with number > `after`, in order, at most `limit`. NOT_FOUND. OUT_OF_RANGE:
  // `after` lies past the last.
  virtual absl::StatusOr<std::vector<StateEvent>> ReadEvents(const std::string& job_id,
                                                             int64_t after, int limit) = 0;
  // Changes with cursor > `after`, in order, at most `limit`. Those of deleted jobs are gone.
  // Unlike what a listener gets, a QUEUED one has no `queued` when the job has changed again since:
  // what it was then is not kept.
  virtual absl::StatusOr<std::vector<Change>> ReadChanges(int64_t after, int limit) = 0;
  virtual absl::StatusOr<int64_t> LatestCursor() = 0;
  // RemoveChangeListener returns when the listener is not running and will not again; not to be
  // called from a listener.
  virtual int64_t AddChangeListener(ChangeListener listener) = 0;
  virtual void RemoveChangeListener(int64_t id) = 0;

  // --- Assets. ---

  // REQUIRES: the file and its folder are fsynced. ALREADY_EXISTS: the id.
  virtual void InsertAsset(Asset asset, Done<Asset> done) = 0;
  // The file to unlink. NOT_FOUND; FAILED_PRECONDITION (ASSET_IN_USE) while a QUEUED or RUNNING job
  // uses it.
  virtual void DeleteAsset(std::string tenant, std::string asset_id, Done<std::string> done) = 0;
  // Removes assets made before `created_before` that no QUEUED or RUNNING job uses, at most
  // `limit`. The files to unlink.
  virtual void DeleteUnusedAssets(absl::Time created_before, int limit,
                                  Done<std::vector<std::string>> done) = 0;
  virtual absl::StatusOr<Asset> GetAsset(const std::string& tenant,
                                         const std::string& asset_id) = 0;
  // Newest first; all of a tenant's (all tenants' when empty), at most `limit`.
  virtual absl::StatusOr<std::vector<Asset>> ListAssets(const std::string& tenant, int limit) = 0;

  // Those of `names` that no row names, in their order: for a sweep that asks for a folder's names
  // some at a time. A running attempt's file is among them.
  virtual absl::StatusOr<std::vector<std::string>> FindLeftOverFiles(
      const std::vector<std::string>& names) = 0;

  // --- The blocking forms of the writes above. ---

  absl::StatusOr<SubmitResult> Submit(NewJob job);
  absl::StatusOr<std::optional<ClaimedAttempt>> Claim(
      std::string job_id, std::string worker, int64_t process_id = 0,
      absl::Duration start_left = absl::InfiniteDuration());
  absl::StatusOr<Job> RecordStats(AttemptRef ref, std::string stats);
  absl::StatusOr<Job> Commit(AttemptRef ref, Artifact artifact, std::string stats);
  absl::StatusOr<Job> Fail(AttemptRef ref, AttemptFailure failure);
  absl::StatusOr<Job> Cancel(std::string tenant, std::string job_id);
  absl::StatusOr<Job> FailQueued(std::string job_id, absl::Status error);
  absl::StatusOr<Job> Expire(std::string job_id);
  absl::StatusOr<Job> Requeue(std::string tenant, std::string job_id);
  absl::StatusOr<int> ForgiveCrashes(std::vector<AttemptRef> attempts);
  absl::StatusOr<std::string> Delete(std::string tenant, std::string job_id);
  absl::StatusOr<std::vector<std::string>> PurgeResults(absl::Time ended_before, int limit);
  absl::StatusOr<PurgedJobs> PurgeJobs(absl::Time ended_before, int limit);
  absl::StatusOr<Asset> InsertAsset(Asset asset);
  absl::StatusOr<std::string> DeleteAsset(std::string tenant, std::string asset_id);
  absl::StatusOr<std::vector<std::string>> DeleteUnusedAssets(absl::Time created_before, int limit);
};

}  // namespace kino::scheduler
