#include <atomic>
#include <set>
#include <thread>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

using ConcurrencyTest = StoreTest;
KINO_FOR_EVERY_STORE(ConcurrencyTest);

TEST_P(ConcurrencyTest, EachJobIsClaimedOnceByManyThreads) {
  constexpr int kJobs = 400, kThreads = 6;
  absl::Mutex mutex;
  std::multiset<std::string> claimed;
  std::atomic<int> committed = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kJobs / 2; ++i) ASSERT_TRUE(store_->Submit(MakeJob()).ok());
    });
  }
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const ReadyWorker worker{.name = "worker-" + std::to_string(t), .models = {"ltx"}};
      while (committed < kJobs) {
        auto claim = ClaimNext(*store_, worker);
        ASSERT_TRUE(claim.ok()) << claim.status();
        if (!claim->has_value()) continue;
        {
          absl::MutexLock lock(&mutex);
          claimed.insert((*claim)->ref.job_id);
        }
        const auto done = store_->Commit((*claim)->ref, MakeArtifact((*claim)->ref.job_id), "");
        ASSERT_TRUE(done.ok()) << done.status();
        EXPECT_EQ(done->attempts.size(), 1u);
        ++committed;
      }
    });
  }
  threads.emplace_back([&] {
    while (committed < kJobs) {
      ASSERT_TRUE(store_->List({.states = {JobState::kRunning}}, 50, "").ok());
      ASSERT_TRUE(store_->Load().ok());
    }
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(claimed.size(), static_cast<size_t>(kJobs));
  EXPECT_EQ(std::set<std::string>(claimed.begin(), claimed.end()).size(), claimed.size());
  EXPECT_EQ(store_->Load()->jobs.at(JobState::kSucceeded), kJobs);
  // Each artifact has the name of its job.
  const auto left_over = store_->FindLeftOverFiles({claimed.begin(), claimed.end()});
  ASSERT_TRUE(left_over.ok()) << left_over.status();
  EXPECT_THAT(*left_over, testing::IsEmpty());
}

TEST_P(ConcurrencyTest, OneOfTwoRacersEndsTheAttempt) {
  for (int round = 0; round < 30; ++round) {
    Submit(MakeJob());
    const AttemptRef ref = Claim().ref;
    absl::Status commit, cancel;
    std::thread committer([&] { commit = store_->Commit(ref, MakeArtifact("a"), "").status(); });
    std::thread loser([&] {
      cancel = store_
                   ->Fail(ref, {.cause = FailureCause::kClient,
                                .error = absl::InvalidArgumentError("x")})
                   .status();
    });
    committer.join();
    loser.join();
    EXPECT_NE(commit.ok(), cancel.ok()) << commit << cancel;
    EXPECT_EQ(StateOf(ref.job_id), commit.ok() ? JobState::kSucceeded : JobState::kFailed);
  }
}

TEST_P(ConcurrencyTest, AFailingOperationLeavesTheOthersOfItsBatchAlone) {
  constexpr int kOperations = 300;
  std::atomic<int> accepted = 0, refused = 0;
  absl::BlockingCounter finished(kOperations);
  for (int i = 0; i < kOperations; ++i) {
    NewJob job = MakeJob();
    if (i % 3 == 0) job.asset_ids = {"missing"};
    store_->Submit(std::move(job), [&](absl::StatusOr<SubmitResult> result) {
      ++(result.ok() ? accepted : refused);
      finished.DecrementCount();
    });
  }
  finished.Wait();
  EXPECT_EQ(accepted, 200);
  EXPECT_EQ(refused, 100);
  EXPECT_EQ(store_->Load()->queued.at(Priority::kNormal), 200);
  EXPECT_EQ(store_->ReadChanges(0, 1000)->size(), 200u);
}

TEST_P(ConcurrencyTest, ClosingCarriesOutWhatWaits) {
  std::atomic<int> accepted = 0;
  for (int i = 0; i < 300; ++i) {
    store_->Submit(MakeJob(), [&](absl::StatusOr<SubmitResult> result) {
      if (result.ok()) ++accepted;
    });
  }
  Reopen();
  EXPECT_EQ(accepted, 300);
  EXPECT_EQ(store_->Load()->queued.at(Priority::kNormal), 300);
}

}  // namespace
}  // namespace kino::scheduler
