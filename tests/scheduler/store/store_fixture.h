// The conformance suite's ground: a store of each kind on a fresh folder, a fake clock and seeded
// randomness. A new store joins by one more line in kStoreKinds.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/status.h"
#include "scheduler/store/job_store.h"
#include "scheduler/store/sqlite/open.h"
#include "tests/scheduler/store/claim_next.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {

// A folder in memory where the system offers that (no test here cuts the power, and fsync is slow
// on a busy disk), else under the temporary folder. Removed with its contents.
class ScratchFolder {
 public:
  ScratchFolder() {
    const bool has_memory = access("/dev/shm", W_OK) == 0;
    std::string name = (has_memory ? "/dev/shm" : std::filesystem::temp_directory_path().string()) +
                       "/kino-store-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct StoreKind {
  const char* name;
  absl::StatusOr<std::unique_ptr<JobStore>> (*open)(const ScratchFolder&, const StoreOptions&,
                                                    const Clock&, RandomSource&);
};
inline const StoreKind kStoreKinds[] = {
    {"Sqlite", [](const ScratchFolder& folder, const StoreOptions& options, const Clock& clock,
                  RandomSource& random) {
       return OpenSqliteJobStore({.path = folder.File("jobs.db")}, options, clock, random);
     }}};

inline NewJob MakeJob(const std::string& model = "ltx") {
  NewJob job;
  job.tenant = "default";
  job.model = model;
  job.request = std::string("request\0with zero", 17);
  job.request_fingerprint = "fingerprint";
  job.server_version = "0.1.0";
  return job;
}

inline Artifact MakeArtifact(const std::string& file) {
  return {.content_type = "video/mp4",
          .size_bytes = 12345,
          .sha256 = "ab12",
          .width = 64,
          .height = 48,
          .num_frames = 17,
          .fps = 23.976,
          .file_name = file};
}

inline const ReadyWorker kWorker{.name = "worker-0", .models = {"ltx"}};

class StoreTest : public testing::TestWithParam<StoreKind> {
 protected:
  void SetUp() override { Reopen(); }

  void Reopen() {
    store_.reset();
    auto store = GetParam().open(folder_, options_, clock_, random_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  Job Submit(NewJob job) {
    auto result = store_->Submit(std::move(job));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? std::move(result->job) : Job();
  }

  // The next job for `worker`; fails the test when there is none.
  ClaimedAttempt Claim(const ReadyWorker& worker = kWorker) {
    auto claim = ClaimNext(*store_, worker, clock_.Now());
    EXPECT_TRUE(claim.ok() && claim->has_value()) << claim.status();
    return claim.ok() && claim->has_value() ? **std::move(claim) : ClaimedAttempt();
  }
  bool HasWorkFor(const ReadyWorker& worker) {
    auto claim = ClaimNext(*store_, worker, clock_.Now());
    EXPECT_TRUE(claim.ok()) << claim.status();
    return claim.ok() && claim->has_value();
  }
  Job Fail(const AttemptRef& ref, FailureCause cause) {
    auto job = store_->Fail(ref, {.cause = cause, .error = absl::InternalError("it broke")});
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *std::move(job) : Job();
  }
  JobState StateOf(const std::string& id) {
    auto job = store_->GetAnyTenant(id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? job->state : JobState::kFailed;
  }
  std::vector<StateEvent> Events(const std::string& id) {
    auto events = store_->ReadEvents(id, 0, 1000);
    EXPECT_TRUE(events.ok()) << events.status();
    return events.ok() ? *std::move(events) : std::vector<StateEvent>();
  }

  ScratchFolder folder_;
  StoreOptions options_;
  FakeClock clock_;
  SeededRandom random_{42};
  std::unique_ptr<JobStore> store_;
};

#define KINO_FOR_EVERY_STORE(suite)                                    \
  INSTANTIATE_TEST_SUITE_P(All, suite, testing::ValuesIn(kStoreKinds), \
                           [](const auto& tested) { return std::string(tested.param.name); })

}  // namespace kino::scheduler
