#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

using SubmitTest = StoreTest;
KINO_FOR_EVERY_STORE(SubmitTest);

TEST_P(SubmitTest, SubmittedJobIsReadBackWhole) {
  ASSERT_TRUE(store_->InsertAsset({.id = "asset-1", .tenant = "default", .file_name = "f"}).ok());
  NewJob job = MakeJob();
  job.priority = Priority::kHigh;
  job.labels = {{"project", "ärger"}, {"shot", "7"}};
  job.request_id = "once";
  job.asset_ids = {"asset-1", "asset-1"};
  job.start_timeout = absl::Minutes(5);
  job.run_timeout = absl::Hours(1);
  const std::string id = Submit(job).id;
  Reopen();
  const auto read = store_->Get("default", id);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->tenant, "default");
  EXPECT_EQ(read->model, "ltx");
  EXPECT_EQ(read->priority, Priority::kHigh);
  EXPECT_EQ(read->labels, job.labels);
  EXPECT_EQ(read->request, job.request);
  EXPECT_EQ(read->request_id, "once");
  EXPECT_EQ(read->request_fingerprint, "fingerprint");
  EXPECT_EQ(read->asset_ids, std::vector<std::string>{"asset-1"});
  EXPECT_EQ(read->server_version, "0.1.0");
  EXPECT_EQ(read->state, JobState::kQueued);
  EXPECT_EQ(read->state_number, 1);
  EXPECT_EQ(read->create_time, clock_.Now());
  EXPECT_EQ(read->start_timeout, absl::Minutes(5));
  EXPECT_EQ(read->run_timeout, absl::Hours(1));
  EXPECT_FALSE(read->start_time || read->end_time || read->artifact || read->retry_not_before);
  EXPECT_TRUE(read->error.ok());
  EXPECT_TRUE(read->attempts.empty());
}

TEST_P(SubmitTest, LimitsMayBeAbsentOrBeyondEveryCalendar) {
  NewJob job = MakeJob();
  EXPECT_EQ(store_->GetAnyTenant(Submit(job).id)->start_timeout, absl::InfiniteDuration());
  job.start_timeout = absl::Hours(24) * 365 * 20000;
  const std::string id = Submit(job).id;
  EXPECT_EQ(store_->GetAnyTenant(id)->start_timeout, job.start_timeout);
  const auto queue = store_->Queue();
  ASSERT_TRUE(queue.ok()) << queue.status();
  ASSERT_EQ(queue->size(), 2u);
  EXPECT_EQ((*queue)[0].start_deadline, absl::InfiniteFuture());
  EXPECT_GT((*queue)[1].start_deadline, clock_.Now() + absl::Hours(24) * 365 * 10000);
}

TEST_P(SubmitTest, ForeignJobIsNotFound) {
  const std::string id = Submit(MakeJob()).id;
  EXPECT_TRUE(absl::IsNotFound(store_->Get("other", id).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Get("default", "nonsense").status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Cancel("other", id).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Delete("other", id).status()));
  EXPECT_EQ(StateOf(id), JobState::kQueued);
}

TEST_P(SubmitTest, SameRequestIdWithSameRequestGivesTheFirstJob) {
  NewJob job = MakeJob();
  job.request_id = "once";
  const auto first = store_->Submit(job);
  const auto again = store_->Submit(job);
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_TRUE(first->is_new);
  EXPECT_FALSE(again->is_new);
  EXPECT_EQ(again->job.id, first->job.id);
  EXPECT_EQ(store_->Load()->jobs[JobState::kQueued], 1);
}

TEST_P(SubmitTest, SameRequestIdWithAnotherRequestIsRefused) {
  NewJob job = MakeJob();
  job.request_id = "once";
  Submit(job);
  job.request_fingerprint = "other";
  const auto refused = store_->Submit(job);
  EXPECT_TRUE(absl::IsAlreadyExists(refused.status())) << refused.status();
  EXPECT_EQ(ReasonOf(refused.status()), kReasonRequestIdReused);
}

TEST_P(SubmitTest, RequestIdsOfTwoTenantsAreTheirOwn) {
  NewJob job = MakeJob();
  job.request_id = "once";
  const std::string first = Submit(job).id;
  job.tenant = "other";
  job.request_fingerprint = "other";
  EXPECT_NE(Submit(job).id, first);
}

TEST_P(SubmitTest, RequestIdIsFreeAgainAfterDeletion) {
  NewJob job = MakeJob();
  job.request_id = "once";
  const std::string first = Submit(job).id;
  ASSERT_TRUE(store_->Cancel("default", first).ok());
  EXPECT_EQ(Submit(job).id, first);
  ASSERT_TRUE(store_->Delete("default", first).ok());
  EXPECT_NE(Submit(job).id, first);
}

TEST_P(SubmitTest, ManyRetriesOfOneRequestIdMakeOneJob) {
  std::vector<std::thread> threads;
  std::vector<std::string> ids(8);
  for (size_t t = 0; t < ids.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        NewJob job = MakeJob();
        job.request_id = "once";
        const auto result = store_->Submit(job);
        ASSERT_TRUE(result.ok()) << result.status();
        ids[t] = result->job.id;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(ids, testing::Each(ids[0]));
  EXPECT_EQ(store_->Load()->jobs[JobState::kQueued], 1);
}

TEST_P(SubmitTest, FullQueueRefusesUntilAJobLeavesIt) {
  options_.admission.max_queued_jobs = 2;
  Reopen();
  Submit(MakeJob());
  Submit(MakeJob());
  const auto refused = store_->Submit(MakeJob());
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_EQ(ReasonOf(refused.status()), kReasonQueueFull);
  Claim();
  EXPECT_TRUE(store_->Submit(MakeJob()).ok());
}

TEST_P(SubmitTest, UnknownOrForeignAssetIsNotFoundAndNothingIsQueued) {
  ASSERT_TRUE(store_->InsertAsset({.id = "theirs", .tenant = "other", .file_name = "f"}).ok());
  for (const char* asset : {"missing", "theirs"}) {
    NewJob job = MakeJob();
    job.asset_ids = {asset};
    EXPECT_TRUE(absl::IsNotFound(store_->Submit(job).status())) << asset;
  }
  EXPECT_EQ(store_->Load()->jobs[JobState::kQueued], 0);
  EXPECT_EQ(*store_->LatestCursor(), 0);
}

TEST_P(SubmitTest, JobNotStartedInTimeExpires) {
  NewJob job = MakeJob();
  job.start_timeout = absl::Seconds(10);
  const std::string id = Submit(job).id;
  ASSERT_EQ(store_->Queue()->size(), 1u);
  EXPECT_EQ(store_->Queue()->front().start_deadline, clock_.Now() + absl::Seconds(10));
  clock_.Advance(absl::Seconds(10));
  const auto expired = store_->Expire(id);
  ASSERT_TRUE(expired.ok()) << expired.status();
  EXPECT_EQ(expired->state, JobState::kExpired);
  EXPECT_FALSE(HasWorkFor(kWorker));
  const auto read = store_->GetAnyTenant(id);
  EXPECT_EQ(read->state, JobState::kExpired);
  EXPECT_TRUE(absl::IsDeadlineExceeded(read->error)) << read->error;
  EXPECT_EQ(read->end_time, clock_.Now());
  EXPECT_EQ(Events(id).back().reason, "start_timeout passed");
  EXPECT_TRUE(store_->Queue()->empty());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Expire(id).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Expire("nonsense").status()));
}

TEST_P(SubmitTest, StartTimeoutCountsQueueTimeOnly) {
  NewJob job = MakeJob();
  job.start_timeout = absl::Seconds(10);
  Submit(job);
  clock_.Advance(absl::Seconds(6));
  const ClaimedAttempt claimed = Claim();
  EXPECT_TRUE(store_->Queue()->empty());
  clock_.Advance(absl::Hours(1));
  Fail(claimed.ref, FailureCause::kInterrupted);
  ASSERT_EQ(store_->Queue()->size(), 1u);
  EXPECT_EQ(store_->Queue()->front().start_deadline, clock_.Now() + absl::Seconds(4));
}

TEST_P(SubmitTest, WhoClaimsSaysWhatIsLeftOfStartTimeoutAndNoWallClockDoes) {
  const std::pair<absl::Duration, absl::Duration> cases[] = {
      {absl::Seconds(4), absl::Seconds(4)},         {absl::Microseconds(1), absl::Microseconds(1)},
      {absl::ZeroDuration(), absl::ZeroDuration()}, {-absl::Seconds(1), absl::ZeroDuration()},
      {absl::Seconds(10), absl::Seconds(10)},       {absl::Seconds(11), absl::Seconds(10)},
      {absl::InfiniteDuration(), absl::Seconds(10)}};
  for (const absl::Duration step : {absl::Hours(1), -absl::Hours(1), absl::ZeroDuration()}) {
    for (const auto& [told, want] : cases) {
      SCOPED_TRACE(absl::StrCat(absl::FormatDuration(step), ", ", absl::FormatDuration(told)));
      NewJob job = MakeJob();
      job.start_timeout = absl::Seconds(10);
      const std::string id = Submit(job).id;
      clock_.JumpWall(step);
      const auto claim = store_->Claim(id, "w", 0, told);
      ASSERT_TRUE(claim.ok() && claim->has_value()) << claim.status();
      clock_.JumpWall(step);
      Fail((*claim)->ref, FailureCause::kInterrupted);
      ASSERT_EQ(store_->Queue()->size(), 1u);
      EXPECT_EQ(store_->Queue()->front().start_deadline, clock_.Now() + want);
      ASSERT_TRUE(store_->Cancel("default", id).ok());
    }
  }
}

TEST_P(SubmitTest, JobWithoutStartTimeoutGetsNoneByBeingClaimed) {
  const std::string id = Submit(MakeJob()).id;
  const auto claim = store_->Claim(id, "w", 0, absl::Seconds(3));
  ASSERT_TRUE(claim.ok() && claim->has_value()) << claim.status();
  Fail((*claim)->ref, FailureCause::kInterrupted);
  EXPECT_EQ(store_->Queue()->front().start_deadline, absl::InfiniteFuture());
}

}  // namespace
}  // namespace kino::scheduler
