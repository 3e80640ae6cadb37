// JobStore on one SQLite file: writes through the Writer's thread, reads on a few read-only
// connections. Thread-safe. Owns its connections and the lock on the file.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/random.h"
#include "scheduler/store/job_store.h"
#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/file_check.h"
#include "scheduler/store/sqlite/file_lock.h"
#include "scheduler/store/sqlite/open.h"
#include "scheduler/store/sqlite/rows.h"
#include "scheduler/store/sqlite/writer.h"

namespace kino::scheduler {

class SqliteJobStore final : public JobStore {
 public:
  // `db` is the read-write connection, configured and migrated. `check`: a read-only one where the
  // file is to be looked through, null where it was closed in peace.
  SqliteJobStore(const SqliteOptions& sqlite, const StoreOptions& options, const Clock& clock,
                 RandomSource& random, std::unique_ptr<FileLock> lock,
                 std::unique_ptr<Connection> db, std::unique_ptr<Connection> check);
  ~SqliteJobStore() override;

  void Submit(NewJob job, Done<SubmitResult> done) override;
  void Claim(std::string job_id, std::string worker, int64_t process_id, absl::Duration start_left,
             Done<std::optional<ClaimedAttempt>> done) override;
  void RecordStats(AttemptRef ref, std::string stats, Done<Job> done) override;
  void Commit(AttemptRef ref, Artifact artifact, std::string stats, Done<Job> done) override;
  void Fail(AttemptRef ref, AttemptFailure failure, Done<Job> done) override;
  void Cancel(std::string tenant, std::string job_id, Done<Job> done) override;
  void FailQueued(std::string job_id, absl::Status error, Done<Job> done) override;
  void Expire(std::string job_id, Done<Job> done) override;
  void Requeue(std::string tenant, std::string job_id, Done<Job> done) override;
  void ForgiveCrashes(std::vector<AttemptRef> attempts, Done<int> done) override;
  void Delete(std::string tenant, std::string job_id, Done<std::string> done) override;
  void PurgeResults(absl::Time ended_before, int limit,
                    Done<std::vector<std::string>> done) override;
  void PurgeJobs(absl::Time ended_before, int limit, Done<PurgedJobs> done) override;

  absl::StatusOr<Job> Get(const std::string& tenant, const std::string& job_id) override;
  absl::StatusOr<Job> GetAnyTenant(const std::string& job_id) override;
  absl::StatusOr<std::optional<Job>> FindByRequestId(const std::string& tenant,
                                                     const std::string& request_id) override;
  absl::StatusOr<JobPage> List(const JobFilter& filter, int page_size,
                               const std::string& page_token, int64_t max_bytes) override;
  absl::Status CheckAttempt(const AttemptRef& ref) override;
  absl::StatusOr<std::vector<RunningAttempt>> RunningAttempts() override;
  absl::StatusOr<std::vector<QueuedJob>> Queue() override;
  absl::StatusOr<QueueLoad> Load() override;
  absl::StatusOr<std::map<std::string, int64_t>> DiskUse() override;
  absl::StatusOr<std::vector<StateEvent>> ReadEvents(const std::string& job_id, int64_t after,
                                                     int limit) override;
  absl::StatusOr<std::vector<Change>> ReadChanges(int64_t after, int limit) override;
  absl::StatusOr<int64_t> LatestCursor() override;
  int64_t AddChangeListener(ChangeListener listener) override;
  void RemoveChangeListener(int64_t id) override;

  void InsertAsset(Asset asset, Done<Asset> done) override;
  void DeleteAsset(std::string tenant, std::string asset_id, Done<std::string> done) override;
  void DeleteUnusedAssets(absl::Time created_before, int limit,
                          Done<std::vector<std::string>> done) override;
  absl::StatusOr<Asset> GetAsset(const std::string& tenant, const std::string& asset_id) override;
  absl::StatusOr<std::vector<Asset>> ListAssets(const std::string& tenant, int limit) override;
  absl::StatusOr<std::vector<std::string>> FindLeftOverFiles(
      const std::vector<std::string>& names) override;

 private:
  // Clients' operations are refused when too many wait; what workers report is never refused, their
  // slots bound it.
  enum class From { kClient, kServer };
  template <typename T>
  void Write(From from, Done<T> done, typename TypedWriteOperation<T>::Body body) {
    auto operation = std::make_unique<TypedWriteOperation<T>>(std::move(body), std::move(done));
    Start(from, std::move(operation));
  }
  void Start(From from, std::unique_ptr<WriteOperation> operation);

  // Carries `read` out on a read-only connection, in one snapshot.
  template <typename T>
  absl::StatusOr<T> Read(const std::function<absl::StatusOr<T>(Connection&)>& read) {
    absl::StatusOr<T> result = absl::InternalError("not read");
    const absl::Status status = ReadSnapshot([&](Connection& db) {
      result = read(db);
      return result.status();
    });
    if (!status.ok()) return status;
    return result;
  }
  absl::Status ReadSnapshot(const std::function<absl::Status(Connection&)>& read);

  absl::StatusOr<SubmitResult> SubmitNow(Transaction& transaction, const NewJob& job);
  absl::StatusOr<std::optional<ClaimedAttempt>> ClaimNow(Transaction& transaction,
                                                         const std::string& job_id,
                                                         const std::string& worker,
                                                         int64_t process_id,
                                                         absl::Duration start_left);
  absl::StatusOr<Job> CommitNow(Transaction& transaction, const AttemptRef& ref,
                                const Artifact& artifact, const std::string& stats);
  absl::StatusOr<Job> FailNow(Transaction& transaction, const AttemptRef& ref,
                              const AttemptFailure& failure);
  absl::StatusOr<Job> CancelNow(Transaction& transaction, const std::string& tenant,
                                const std::string& job_id);
  absl::StatusOr<Job> EndQueuedNow(Transaction& transaction, const std::string& job_id,
                                   JobTrigger trigger, const absl::Status& error);
  absl::StatusOr<Job> RequeueNow(Transaction& transaction, const std::string& tenant,
                                 const std::string& job_id);
  absl::StatusOr<int> ForgiveNow(Transaction& transaction, const std::vector<AttemptRef>& attempts);

  const SqliteOptions sqlite_;
  const StoreOptions options_;
  const Clock& clock_;
  RandomSource& random_;
  const std::unique_ptr<FileLock> lock_;  // released after all connections are closed
  absl::Mutex readers_mutex_;
  std::vector<std::unique_ptr<Connection>> idle_readers_ ABSL_GUARDED_BY(readers_mutex_);
  int open_readers_ ABSL_GUARDED_BY(readers_mutex_) = 0;
  std::unique_ptr<Writer> writer_;
  std::atomic<bool> is_sound_ = false;  // nothing is wrong with the file, as far as is known
  std::unique_ptr<FileCheck> check_;    // last: tells about all of the above
};

}  // namespace kino::scheduler
