// The contract of job_store.h once more, in memory and by other means: plain maps, walks over all
// of them, no SQL. A test runs the same commands on a store and on this and compares.
//
// What the store may choose freely (ids, tokens, the jitter of a back-off, cursors) is told to the
// model. Single-threaded.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/queue/policy.h"
#include "scheduler/store/job_store.h"

namespace kino::scheduler {

struct ModelJob {
  Job job{};
  int64_t order = 0;  // of submission
  std::vector<StateEvent> events{};
  std::string token{};                         // while RUNNING
  std::optional<absl::Time> start_by{};        // while QUEUED: when start_timeout passes
  std::optional<absl::Duration> start_left{};  // while RUNNING: what is left of it
  int uncounted_attempts = 0;                  // those before it was last requeued
  std::set<int> forgiven{};                    // attempts whose crash counts no more
};

class StoreModel {
 public:
  StoreModel(const StoreOptions& options, const Clock& clock) : options_(options), clock_(clock) {}

  // Each gives the status that the store must give. What the store answered is passed where it has
  // to be taken over.
  absl::Status Submit(const NewJob& job, const std::string& made_id, std::string& id);
  std::optional<std::string> FindNext(const ReadyWorker& worker) const;
  bool Claim(const std::string& id, const std::string& worker, absl::Duration start_left,
             const std::string& made_token);
  absl::Status CheckAttempt(const AttemptRef& ref) const;
  absl::Status RecordStats(const AttemptRef& ref, const std::string& stats);
  absl::Status Commit(const AttemptRef& ref, const Artifact& artifact, const std::string& stats);
  // `not_before`: the store's choice; it is checked against the policy's bounds.
  absl::Status Fail(const AttemptRef& ref, const AttemptFailure& failure,
                    std::optional<absl::Time> not_before);
  absl::Status Cancel(const std::string& tenant, const std::string& id);
  absl::Status FailQueued(const std::string& id, const absl::Status& error);
  absl::Status Expire(const std::string& id);
  absl::Status Requeue(const std::string& tenant, const std::string& id);
  int ForgiveCrashes(const std::vector<AttemptRef>& attempts);
  absl::Status Delete(const std::string& tenant, const std::string& id, std::string& file);
  // Whether the store's choice of files and jobs is one that it may make; takes it over.
  bool PurgeResults(absl::Time ended_before, int limit, const std::vector<std::string>& files);
  bool PurgeJobs(absl::Time ended_before, int limit, const std::set<std::string>& gone,
                 const PurgedJobs& purged);
  absl::Status InsertAsset(const Asset& asset);
  absl::Status DeleteAsset(const std::string& tenant, const std::string& id, std::string& file);
  bool DeleteUnusedAssets(absl::Time created_before, int limit,
                          const std::vector<std::string>& files);

  const std::map<std::string, ModelJob>& jobs() const { return jobs_; }
  const std::map<std::string, Asset>& assets() const { return assets_; }
  std::vector<std::string> List(const JobFilter& filter) const;  // ids, newest first
  // In the order of claims. A back-off that another wall clock wrote is left out.
  std::vector<QueuedJob> Queue() const;
  std::optional<std::string> FindByRequestId(const std::string& tenant,
                                             const std::string& request_id) const;
  std::set<std::string> LiveFiles() const;
  std::map<std::string, int64_t> DiskUse() const;

 private:
  bool HasGoneAsset(const ModelJob& job) const;
  void RunAgain(ModelJob& job, const std::string& reason);
  bool IsAssetUsed(const std::string& id) const;
  void Enter(ModelJob& job, JobState state, const std::string& reason);
  void EndAttempt(ModelJob& job, FailureCause cause, const absl::Status& error);
  // The job whose running attempt `ref` names, or null.
  ModelJob* Running(const AttemptRef& ref);

  const StoreOptions options_;
  const Clock& clock_;
  std::map<std::string, ModelJob> jobs_;
  std::map<std::string, Asset> assets_;
  int64_t last_order_ = 0;
};

// Everything that a caller can see of a job, as a text to compare. Times in microseconds.
std::string Describe(const Job& job);
// The same without `order`, of which only the comparison counts.
std::string Describe(const QueuedJob& job);

}  // namespace kino::scheduler
