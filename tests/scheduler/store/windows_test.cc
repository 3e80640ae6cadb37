// Windows held open by a disk that waits or fails, and the neighbours of every limit.
#include <atomic>
#include <functional>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

class WindowsTest : public testing::Test {
 protected:
  void Open(SqliteOptions sqlite = {}, const StoreOptions& options = {}) {
    store_.reset();
    sqlite.path = folder_.File("jobs.db");
    sqlite.vfs = disk_.Vfs();
    sqlite.files = &disk_;
    auto store = OpenSqliteJobStore(sqlite, options, clock_, random_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::string Submit(const NewJob& job = MakeJob()) {
    const auto submitted = store_->Submit(job);
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    return submitted.ok() ? submitted->job.id : "";
  }
  AttemptRef Claim() {
    const auto claim = ClaimNext(*store_, kWorker);
    EXPECT_TRUE(claim.ok() && claim->has_value()) << claim.status();
    return claim.ok() && claim->has_value() ? (*claim)->ref : AttemptRef();
  }

  SimulatedDisk disk_;
  ScratchFolder folder_;
  FakeClock clock_;
  SeededRandom random_{7};
  std::unique_ptr<JobStore> store_;
};

TEST_F(WindowsTest, NothingIsAcknowledgedOrToldBeforeItIsSynced) {
  Open();
  using Begin = std::function<void(std::function<void(const absl::Status&)>)>;
  // Each prepares its ground and gives what starts the write.
  const auto end_of = [](const std::function<void(const absl::Status&)>& done) {
    return [done](const auto& result) { done(result.status()); };
  };
  const std::vector<std::pair<const char*, std::function<Begin()>>> operations = {
      {"Submit",
       [&]() -> Begin { return [&](auto done) { store_->Submit(MakeJob(), end_of(done)); }; }},
      {"Claim",
       [&]() -> Begin {
         return [&, id = Submit()](auto done) {
           store_->Claim(id, "w", 0, absl::InfiniteDuration(), end_of(done));
         };
       }},
      {"RecordStats",
       [&]() -> Begin {
         Submit();
         return [&, ref = Claim()](auto done) { store_->RecordStats(ref, "s", end_of(done)); };
       }},
      {"Commit",
       [&]() -> Begin {
         Submit();
         return [&, ref = Claim()](auto done) {
           store_->Commit(ref, MakeArtifact("a"), "", end_of(done));
         };
       }},
      {"Fail",
       [&]() -> Begin {
         Submit();
         return [&, ref = Claim()](auto done) {
           store_->Fail(ref, {.cause = FailureCause::kClient, .error = absl::InternalError("x")},
                        end_of(done));
         };
       }},
      {"Cancel",
       [&]() -> Begin {
         return [&, id = Submit()](auto done) { store_->Cancel("default", id, end_of(done)); };
       }},
      {"FailQueued",
       [&]() -> Begin {
         return [&, id = Submit()](auto done) {
           store_->FailQueued(id, absl::InternalError("x"), end_of(done));
         };
       }},
      {"Expire",
       [&]() -> Begin {
         return [&, id = Submit()](auto done) { store_->Expire(id, end_of(done)); };
       }},
      {"Requeue",
       [&]() -> Begin {
         const std::string id = Submit();
         EXPECT_TRUE(store_->Expire(id).ok());
         return [&, id](auto done) { store_->Requeue("default", id, end_of(done)); };
       }},
      {"ForgiveCrashes",
       [&]() -> Begin {
         // Its job is quarantined for them and freed.
         const std::string id = Submit();
         std::vector<AttemptRef> crashes;
         for (int i = 0; i < 2; ++i) {
           const auto claim = store_->Claim(id, "w");
           EXPECT_TRUE(claim.ok() && claim->has_value()) << claim.status();
           crashes.push_back((*claim)->ref);
           EXPECT_TRUE(store_
                           ->Fail(crashes.back(), {.cause = FailureCause::kCrash,
                                                   .error = absl::InternalError("x")})
                           .ok());
         }
         return [&, crashes](auto done) { store_->ForgiveCrashes(crashes, end_of(done)); };
       }},
      {"Delete",
       [&]() -> Begin {
         const std::string id = Submit();
         EXPECT_TRUE(store_->Cancel("default", id).ok());
         return [&, id](auto done) { store_->Delete("default", id, end_of(done)); };
       }},
      {"PurgeResults",
       [&]() -> Begin {
         return [&](auto done) { store_->PurgeResults(absl::InfiniteFuture(), 1, end_of(done)); };
       }},
      {"PurgeJobs",
       [&]() -> Begin {
         return [&](auto done) { store_->PurgeJobs(absl::InfiniteFuture(), 1, end_of(done)); };
       }},
      {"InsertAsset",
       [&]() -> Begin {
         return [&](auto done) {
           store_->InsertAsset({.id = "a", .tenant = "default", .file_name = "f"}, end_of(done));
         };
       }},
      {"DeleteAsset",
       [&]() -> Begin {
         return [&](auto done) { store_->DeleteAsset("default", "a", end_of(done)); };
       }},
      {"DeleteUnusedAssets",
       [&]() -> Begin {
         EXPECT_TRUE(store_->InsertAsset({.id = "b", .tenant = "default", .file_name = "f"}).ok());
         return [&](auto done) {
           store_->DeleteUnusedAssets(absl::InfiniteFuture(), 1, end_of(done));
         };
       }},
  };
  std::atomic<int> told = 0;
  store_->AddChangeListener([&](const std::vector<Change>&) { ++told; });
  for (const auto& [name, prepare] : operations) {
    SCOPED_TRACE(name);
    const Begin begin = prepare();
    const int told_before = told;
    disk_.Hold(DiskCall::kSync, "-wal");
    absl::Notification finished;
    absl::Status status = absl::UnknownError("not called");
    begin([&](const absl::Status& result) {
      status = result;
      finished.Notify();
    });
    EXPECT_TRUE(disk_.WaitUntilHeld());
    EXPECT_FALSE(finished.HasBeenNotified()) << "acknowledged before it was synced";
    EXPECT_EQ(told, told_before) << "told before it was synced";
    disk_.Release();
    finished.WaitForNotification();
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_F(WindowsTest, ReadersThatCouldNotOpenAreNotCounted) {
  constexpr int kReaders = 3;
  for (const DiskCall call : {DiskCall::kOpen, DiskCall::kRead, DiskCall::kMap}) {
    SCOPED_TRACE(DiskCallName(call));
    Open({.max_readers = kReaders});
    disk_.PlanFault({.calls = {call}, .path_part = "jobs.db", .error = EMFILE, .is_lasting = true});
    for (int i = 0; i <= kReaders; ++i) {
      const absl::Status status = store_->Load().status();
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    }
    EXPECT_GT(disk_.faults_struck(), kReaders);
    disk_.Heal();
    for (int i = 0; i <= kReaders; ++i) EXPECT_TRUE(store_->Load().ok());
  }
}

TEST_F(WindowsTest, AsManyClientsWaitAsMayAndOneMoreIsRefused) {
  constexpr int kMayWait = 3;
  Open({.max_pending = kMayWait});
  const std::string late = Submit();
  disk_.Hold(DiskCall::kSync, "-wal");
  absl::BlockingCounter finished(1 + kMayWait + 1);
  std::atomic<int> accepted = 0;
  const auto submit = [&] {
    store_->Submit(MakeJob(), [&](const absl::StatusOr<SubmitResult>& result) {
      if (result.ok()) ++accepted;
      finished.DecrementCount();
    });
  };
  submit();
  EXPECT_TRUE(disk_.WaitUntilHeld());  // it is being committed and waits no more
  for (int i = 0; i < kMayWait; ++i) submit();
  absl::Mutex mutex;
  absl::Status refused = absl::UnknownError("not refused at once");
  store_->Submit(MakeJob(), [&](const absl::StatusOr<SubmitResult>& result) {
    absl::MutexLock lock(&mutex);
    refused = result.status();
  });
  {
    absl::MutexLock lock(&mutex);
    EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
    EXPECT_EQ(ReasonOf(refused), kReasonStoreUnavailable);
  }
  EXPECT_EQ(accepted, 0);
  store_->Expire(late, [&](const auto& result) {
    EXPECT_TRUE(result.ok()) << "what the server needs is never refused";
    finished.DecrementCount();
  });
  disk_.Release();
  finished.Wait();
  EXPECT_EQ(accepted, 1 + kMayWait);
  EXPECT_EQ(store_->Load()->jobs.at(JobState::kQueued), 1 + kMayWait);
}

TEST_F(WindowsTest, WhatFailedTogetherIsTriedOneByOne) {
  Open();
  disk_.Hold(DiskCall::kSync, "-wal");
  absl::BlockingCounter finished(4);
  std::atomic<int> accepted = 0;
  const auto submit = [&] {
    store_->Submit(MakeJob(), [&](const absl::StatusOr<SubmitResult>& result) {
      if (result.ok()) ++accepted;
      finished.DecrementCount();
    });
  };
  submit();
  EXPECT_TRUE(disk_.WaitUntilHeld());
  for (int i = 0; i < 3; ++i) submit();  // one transaction, as they wait together
  disk_.PlanFault({.calls = {DiskCall::kWrite}, .path_part = "-wal", .error = ENOSPC});
  disk_.Release();
  finished.Wait();
  EXPECT_EQ(disk_.faults_struck(), 1);
  EXPECT_EQ(accepted, 4);
  EXPECT_EQ(store_->Load()->jobs.at(JobState::kQueued), 4);
}

TEST_F(WindowsTest, KnownRequestIdIsAnsweredThoughTheQueueIsFull) {
  Open({}, {.admission = {.max_queued_jobs = 2}});
  NewJob job = MakeJob();
  job.request_id = "once";
  const std::string first = Submit(job);
  Submit();
  const auto again = store_->Submit(job);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->job.id, first);
  EXPECT_FALSE(again->is_new);
  job.request_fingerprint = "other";
  EXPECT_EQ(ReasonOf(store_->Submit(job).status()), kReasonRequestIdReused);
  job.request_id = "another";
  EXPECT_EQ(ReasonOf(store_->Submit(job).status()), kReasonQueueFull);
}

TEST_F(WindowsTest, LargestRequestIsTakenAndOneByteMoreIsNot) {
  Open({}, {.admission = {.max_request_bytes = 1000}});
  NewJob job = MakeJob();
  job.request.assign(1000, 'x');
  Submit(job);
  job.request += 'x';
  EXPECT_EQ(ReasonOf(store_->Submit(job).status()), kReasonRequestTooLarge);
}

TEST_F(WindowsTest, LargestPageHoldsAThousand) {
  Open();
  absl::BlockingCounter finished(1001);
  for (int i = 0; i < 1001; ++i) {
    store_->Submit(MakeJob(), [&](const absl::StatusOr<SubmitResult>& result) {
      EXPECT_TRUE(result.ok()) << result.status();
      finished.DecrementCount();
    });
  }
  finished.Wait();
  const auto page = store_->List({}, 1000, "");
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->jobs.size(), 1000u);
  const auto last = store_->List({}, 1000, page->next_page_token);
  ASSERT_TRUE(last.ok());
  EXPECT_EQ(last->jobs.size(), 1u);
  EXPECT_EQ(last->next_page_token, "");
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({}, 1001, "").status()));
  // A page that holds all there is has no next one.
  EXPECT_EQ(store_->List({}, 1, last->next_page_token)->jobs.size(), 1u);
}

TEST_F(WindowsTest, AThousandJobsExpireWhileTheDiskWaits) {
  constexpr size_t kJobs = 1001;
  Open();
  absl::BlockingCounter submitted(kJobs);
  std::vector<std::string> ids;  // written on the store's thread only, until it is read
  for (size_t i = 0; i < kJobs; ++i) {
    store_->Submit(MakeJob(), [&](const absl::StatusOr<SubmitResult>& result) {
      ids.push_back(result->job.id);
      submitted.DecrementCount();
    });
  }
  submitted.Wait();
  disk_.Hold(DiskCall::kSync, "-wal");
  absl::Notification cancelled;
  store_->Cancel("default", ids[0], [&](const auto&) { cancelled.Notify(); });
  EXPECT_TRUE(disk_.WaitUntilHeld());
  // All wait: the server's own operations are never too many.
  absl::BlockingCounter expired(kJobs);
  std::vector<std::string> order;
  int refused = 0;
  for (const std::string& id : ids) {
    store_->Expire(id, [&, id](const absl::StatusOr<Job>& job) {
      order.push_back(id);
      if (!job.ok()) ++refused;
      expired.DecrementCount();
    });
  }
  disk_.Release();
  cancelled.WaitForNotification();
  expired.Wait();
  EXPECT_EQ(refused, 1) << "the one that was cancelled before";
  EXPECT_EQ(order, ids) << "answered in the order they were asked";
  EXPECT_EQ(store_->Load()->jobs.at(JobState::kExpired), 1000);
  EXPECT_TRUE(store_->Queue()->empty());
}

}  // namespace
}  // namespace kino::scheduler
