#include "scheduler/store/job_store.h"

#include <utility>

#include "absl/synchronization/notification.h"

namespace kino::scheduler {

namespace {

// Starts an operation with a `done` that this call then waits for.
template <typename T, typename Start>
absl::StatusOr<T> Await(Start start) {
  absl::StatusOr<T> result = absl::InternalError("the operation did not finish");
  absl::Notification finished;
  start(Done<T>([&result, &finished](absl::StatusOr<T> value) {
    result = std::move(value);
    finished.Notify();
  }));
  finished.WaitForNotification();
  return result;
}

}  // namespace

absl::StatusOr<SubmitResult> JobStore::Submit(NewJob job) {
  return Await<SubmitResult>(
      [&](Done<SubmitResult> done) { Submit(std::move(job), std::move(done)); });
}

absl::StatusOr<std::optional<ClaimedAttempt>> JobStore::Claim(std::string job_id,
                                                              std::string worker,
                                                              int64_t process_id,
                                                              absl::Duration start_left) {
  using Lease = std::optional<ClaimedAttempt>;
  return Await<Lease>([&](Done<Lease> done) {
    Claim(std::move(job_id), std::move(worker), process_id, start_left, std::move(done));
  });
}

absl::StatusOr<Job> JobStore::RecordStats(AttemptRef ref, std::string stats) {
  return Await<Job>(
      [&](Done<Job> done) { RecordStats(std::move(ref), std::move(stats), std::move(done)); });
}

absl::StatusOr<Job> JobStore::Commit(AttemptRef ref, Artifact artifact, std::string stats) {
  return Await<Job>([&](Done<Job> done) {
    Commit(std::move(ref), std::move(artifact), std::move(stats), std::move(done));
  });
}

absl::StatusOr<Job> JobStore::Fail(AttemptRef ref, AttemptFailure failure) {
  return Await<Job>(
      [&](Done<Job> done) { Fail(std::move(ref), std::move(failure), std::move(done)); });
}

absl::StatusOr<Job> JobStore::Cancel(std::string tenant, std::string job_id) {
  return Await<Job>(
      [&](Done<Job> done) { Cancel(std::move(tenant), std::move(job_id), std::move(done)); });
}

absl::StatusOr<Job> JobStore::FailQueued(std::string job_id, absl::Status error) {
  return Await<Job>(
      [&](Done<Job> done) { FailQueued(std::move(job_id), std::move(error), std::move(done)); });
}

absl::StatusOr<Job> JobStore::Expire(std::string job_id) {
  return Await<Job>([&](Done<Job> done) { Expire(std::move(job_id), std::move(done)); });
}

absl::StatusOr<Job> JobStore::Requeue(std::string tenant, std::string job_id) {
  return Await<Job>(
      [&](Done<Job> done) { Requeue(std::move(tenant), std::move(job_id), std::move(done)); });
}

absl::StatusOr<int> JobStore::ForgiveCrashes(std::vector<AttemptRef> attempts) {
  return Await<int>([&](Done<int> done) { ForgiveCrashes(std::move(attempts), std::move(done)); });
}

absl::StatusOr<std::string> JobStore::Delete(std::string tenant, std::string job_id) {
  return Await<std::string>([&](Done<std::string> done) {
    Delete(std::move(tenant), std::move(job_id), std::move(done));
  });
}

absl::StatusOr<std::vector<std::string>> JobStore::PurgeResults(absl::Time ended_before,
                                                                int limit) {
  using Files = std::vector<std::string>;
  return Await<Files>(
      [&](Done<Files> done) { PurgeResults(ended_before, limit, std::move(done)); });
}

absl::StatusOr<PurgedJobs> JobStore::PurgeJobs(absl::Time ended_before, int limit) {
  return Await<PurgedJobs>(
      [&](Done<PurgedJobs> done) { PurgeJobs(ended_before, limit, std::move(done)); });
}

absl::StatusOr<Asset> JobStore::InsertAsset(Asset asset) {
  return Await<Asset>([&](Done<Asset> done) { InsertAsset(std::move(asset), std::move(done)); });
}

absl::StatusOr<std::string> JobStore::DeleteAsset(std::string tenant, std::string asset_id) {
  return Await<std::string>([&](Done<std::string> done) {
    DeleteAsset(std::move(tenant), std::move(asset_id), std::move(done));
  });
}

absl::StatusOr<std::vector<std::string>> JobStore::DeleteUnusedAssets(absl::Time created_before,
                                                                      int limit) {
  using Files = std::vector<std::string>;
  return Await<Files>(
      [&](Done<Files> done) { DeleteUnusedAssets(created_before, limit, std::move(done)); });
}

}  // namespace kino::scheduler
