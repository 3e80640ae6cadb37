#include <map>
#include <set>

#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

class ListTest : public StoreTest {
 protected:
  std::vector<std::string> Ids(const JobFilter& filter, int page_size = 1000) {
    std::vector<std::string> ids;
    std::string token;
    do {
      const auto page = store_->List(filter, page_size, token);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) break;
      EXPECT_LE(page->jobs.size(), static_cast<size_t>(page_size));
      for (const Job& job : page->jobs) ids.push_back(job.id);
      token = page->next_page_token;
    } while (!token.empty());
    return ids;
  }
  std::vector<std::string> QueueIds() {
    std::vector<std::string> ids;
    const auto queue = store_->Queue();
    EXPECT_TRUE(queue.ok()) << queue.status();
    if (!queue.ok()) return ids;
    for (const QueuedJob& job : *queue) ids.push_back(job.id);
    return ids;
  }
};
KINO_FOR_EVERY_STORE(ListTest);

TEST_P(ListTest, NewestComesFirst) {
  const std::string first = Submit(MakeJob()).id, second = Submit(MakeJob()).id;
  EXPECT_THAT(Ids({}), testing::ElementsAre(second, first));
}

TEST_P(ListTest, FiltersByEveryField) {
  NewJob job = MakeJob("ltx");
  job.labels = {{"a", "1"}, {"b", "2"}};
  const std::string labelled = Submit(job).id;
  job.labels = {{"a", "1"}};
  const std::string half = Submit(job).id;
  const std::string mochi = Submit(MakeJob("mochi")).id;
  job = MakeJob("ltx");
  job.tenant = "other";
  const std::string foreign = Submit(job).id;
  ASSERT_TRUE(store_->Cancel("default", half).ok());

  EXPECT_THAT(Ids({}), testing::SizeIs(4));
  EXPECT_THAT(Ids({.tenant = "default"}), testing::ElementsAre(mochi, half, labelled));
  EXPECT_THAT(Ids({.tenant = "other"}), testing::ElementsAre(foreign));
  EXPECT_THAT(Ids({.model = "mochi"}), testing::ElementsAre(mochi));
  EXPECT_THAT(Ids({.labels = {{"a", "1"}}}), testing::ElementsAre(half, labelled));
  EXPECT_THAT(Ids({.labels = {{"a", "1"}, {"b", "2"}}}), testing::ElementsAre(labelled));
  EXPECT_THAT(Ids({.labels = {{"a", "2"}}}), testing::IsEmpty());
  EXPECT_THAT(Ids({.states = {JobState::kCancelled}}), testing::ElementsAre(half));
  EXPECT_THAT(Ids({.tenant = "default",
                   .states = {JobState::kQueued, JobState::kCancelled},
                   .model = "ltx"}),
              testing::ElementsAre(half, labelled));
}

TEST_P(ListTest, PagesAreCompleteAndStableWhileJobsComeIn) {
  std::vector<std::string> want;
  for (int i = 0; i < 25; ++i) want.insert(want.begin(), Submit(MakeJob()).id);
  EXPECT_EQ(Ids({}, 7), want);
  EXPECT_EQ(Ids({}, 25), want);

  std::vector<std::string> seen;
  std::string token;
  do {
    const auto page = store_->List({}, 4, token);
    ASSERT_TRUE(page.ok());
    for (const Job& job : page->jobs) seen.push_back(job.id);
    token = page->next_page_token;
    Submit(MakeJob());
  } while (!token.empty());
  EXPECT_EQ(seen, want);
}

TEST_P(ListTest, ForeignPageTokensAreRefused) {
  for (int i = 0; i < 3; ++i) Submit(MakeJob());
  const std::string token = store_->List({}, 1, "")->next_page_token;
  ASSERT_FALSE(token.empty());
  EXPECT_TRUE(store_->List({}, 2, token).ok());
  for (const std::string& bad : {std::string("x"), std::string("-"), token + "0", token.substr(1),
                                 std::string("ffffffffffffffffffff-0"), std::string("1")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store_->List({}, 1, bad).status())) << bad;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({.model = "ltx"}, 1, token).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({}, 0, "").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({}, 1001, "").status()));
}

TEST_P(ListTest, OnlyEndedJobsAreDeleted) {
  const std::string id = Submit(MakeJob()).id;
  const auto expect_refused = [&] {
    const auto refused = store_->Delete("default", id);
    EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
    EXPECT_EQ(ReasonOf(refused.status()), kReasonJobNotEnded);
  };
  expect_refused();
  const ClaimedAttempt claimed = Claim();
  expect_refused();
  ASSERT_TRUE(store_->Commit(claimed.ref, MakeArtifact("a.mp4"), "").ok());
  EXPECT_EQ(*store_->Delete("default", id), "a.mp4");
  EXPECT_TRUE(absl::IsNotFound(store_->Get("default", id).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->ReadEvents(id, 0, 10).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Delete("default", id).status()));
  EXPECT_THAT(*store_->FindLeftOverFiles({"a.mp4"}), testing::ElementsAre("a.mp4"));
}

TEST_P(ListTest, PurgedResultLeavesASucceededJob) {
  std::vector<std::string> ids;
  for (const char* file : {"old", "new"}) {
    Submit(MakeJob());
    const ClaimedAttempt claimed = Claim();
    ids.push_back(claimed.ref.job_id);
    ASSERT_TRUE(store_->Commit(claimed.ref, MakeArtifact(file), "").ok());
    clock_.Advance(absl::Hours(1));
  }
  EXPECT_THAT(*store_->PurgeResults(clock_.Now() - absl::Minutes(90), 100),
              testing::ElementsAre("old"));
  EXPECT_THAT(*store_->PurgeResults(clock_.Now() - absl::Minutes(90), 100), testing::IsEmpty());
  const auto job = store_->GetAnyTenant(ids[0]);
  EXPECT_EQ(job->state, JobState::kSucceeded);
  EXPECT_TRUE(job->artifact_purged);
  EXPECT_FALSE(job->artifact);
  EXPECT_TRUE(store_->GetAnyTenant(ids[1])->artifact);
  EXPECT_THAT(*store_->FindLeftOverFiles({"old", "new"}), testing::ElementsAre("old"));
  EXPECT_EQ(*store_->Delete("default", ids[0]), "");
}

TEST_P(ListTest, JobsOwnTimeToKeepItsResultGoesBeforeTheServers) {
  const auto end = [&](const char* file, std::optional<absl::Duration> result_ttl) {
    NewJob job = MakeJob();
    job.result_ttl = result_ttl;
    Submit(job);
    const AttemptRef ref = Claim().ref;
    EXPECT_TRUE(store_->Commit(ref, MakeArtifact(file), "").ok());
    return ref.job_id;
  };
  const std::string brief = end("brief", absl::Minutes(1));
  const std::string lasting = end("lasting", absl::Hours(100));
  const std::string usual = end("usual", std::nullopt);
  EXPECT_EQ(store_->GetAnyTenant(brief)->result_ttl, absl::Minutes(1));
  clock_.Advance(absl::Minutes(1) - absl::Microseconds(1));
  const auto purge = [&](absl::Duration kept) {
    return *store_->PurgeResults(clock_.Now() - kept, 10);
  };
  EXPECT_THAT(purge(absl::Hours(1)), testing::IsEmpty()) << "a microsecond too early";
  clock_.Advance(absl::Microseconds(1));
  EXPECT_THAT(purge(absl::Hours(1)), testing::ElementsAre("brief"));
  EXPECT_TRUE(store_->GetAnyTenant(brief)->artifact_purged);
  clock_.Advance(absl::Hours(2));
  EXPECT_THAT(purge(absl::Hours(1)), testing::ElementsAre("usual"));
  clock_.Advance(absl::Hours(99));
  EXPECT_THAT(*store_->PurgeResults(clock_.Now(), 0), testing::IsEmpty());
  EXPECT_THAT(purge(absl::Hours(1000)), testing::ElementsAre("lasting"));
}

TEST_P(ListTest, DiskUseIsWhatEachTenantsFilesTake) {
  EXPECT_THAT(*store_->DiskUse(), testing::IsEmpty());
  ASSERT_TRUE(
      store_->InsertAsset({.id = "a", .tenant = "t", .size_bytes = 7, .file_name = "a"}).ok());
  NewJob job = MakeJob();
  job.tenant = "t";
  Submit(job);
  const AttemptRef ref = Claim().ref;
  Artifact artifact = MakeArtifact("v");
  artifact.size_bytes = 100;
  ASSERT_TRUE(store_->Commit(ref, artifact, "").ok());
  using Use = std::map<std::string, int64_t>;
  EXPECT_EQ(*store_->DiskUse(), (Use{{"t", 107}}));
  ASSERT_EQ(store_->PurgeResults(absl::InfiniteFuture(), 10)->size(), 1u);
  EXPECT_EQ(*store_->DiskUse(), (Use{{"t", 7}}));
  ASSERT_TRUE(store_->Delete("t", ref.job_id).ok());
  EXPECT_EQ(*store_->DiskUse(), (Use{{"t", 7}})) << "its artifact had gone before";
  ASSERT_TRUE(store_->DeleteAsset("t", "a").ok());
  EXPECT_THAT(*store_->DiskUse(), testing::IsEmpty());
  Submit(job);
  ASSERT_TRUE(store_->Commit(Claim().ref, artifact, "").ok());
  clock_.Advance(absl::Hours(1));
  ASSERT_EQ(store_->PurgeJobs(clock_.Now(), 10)->jobs, 1);
  EXPECT_THAT(*store_->DiskUse(), testing::IsEmpty());
}

TEST_P(ListTest, PageEndsBeforeItsBytesExceedTheBound) {
  NewJob job = MakeJob();
  for (const size_t bytes : {300, 100, 400, 100, 100}) {
    job.request.assign(bytes, 'x');
    Submit(job);
  }
  // Newest first: 100, 100, 400, 100, 300.
  const auto sizes = [&](int64_t max_bytes) {
    std::vector<size_t> counts;
    std::string token;
    do {
      const auto page = store_->List({}, 4, token, max_bytes);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) break;
      counts.push_back(page->jobs.size());
      token = page->next_page_token;
    } while (!token.empty());
    return counts;
  };
  EXPECT_THAT(sizes(600), testing::ElementsAre(3, 2));
  EXPECT_THAT(sizes(599), testing::ElementsAre(2, 2, 1));
  EXPECT_THAT(sizes(1), testing::ElementsAre(1, 1, 1, 1, 1)) << "one job is always there";
  EXPECT_THAT(sizes(INT64_MAX), testing::ElementsAre(4, 1));
}

TEST_P(ListTest, OldJobsArePurgedWithTheirFiles) {
  const auto end = [&](const char* file) {
    Submit(MakeJob());
    const AttemptRef ref = Claim().ref;
    EXPECT_TRUE(store_->Commit(ref, MakeArtifact(file), "").ok());
    return ref.job_id;
  };
  NewJob named = MakeJob();
  named.request_id = "once";
  named.labels = {{"a", "1"}};
  const std::string cancelled = Submit(named).id;
  ASSERT_TRUE(store_->Cancel("default", cancelled).ok());
  const std::string purged = end("purged");
  EXPECT_EQ(store_->PurgeResults(absl::InfiniteFuture(), 10)->size(), 1u);
  const std::string old = end("old");
  const std::string queued = Submit(MakeJob("mochi")).id;
  clock_.Advance(absl::Hours(2));
  const std::string fresh = end("fresh");
  Submit(MakeJob());
  const AttemptRef running = Claim().ref;
  const absl::Time before = clock_.Now() - absl::Hours(1);
  auto gone = store_->PurgeJobs(before, 2);
  ASSERT_TRUE(gone.ok()) << gone.status();
  EXPECT_EQ(gone->jobs, 2);
  gone = store_->PurgeJobs(before, 2);
  EXPECT_EQ(gone->jobs, 1);
  EXPECT_THAT(gone->files, testing::ElementsAre("old"));
  gone = store_->PurgeJobs(before, 2);
  EXPECT_EQ(gone->jobs, 0);
  for (const std::string& id : {cancelled, purged, old}) {
    EXPECT_TRUE(absl::IsNotFound(store_->GetAnyTenant(id).status()));
    EXPECT_TRUE(absl::IsNotFound(store_->ReadEvents(id, 0, 10).status()));
  }
  EXPECT_THAT(Ids({}), testing::ElementsAre(running.job_id, fresh, queued));
  EXPECT_THAT(Ids({.tenant = "default", .labels = {{"a", "1"}}}), testing::IsEmpty());
  EXPECT_TRUE(store_->Submit(named)->is_new) << "its request_id is free again";
  clock_.Advance(absl::Hours(100));
  EXPECT_EQ(store_->PurgeJobs(absl::InfiniteFuture(), 100)->jobs, 1) << "what has not ended stays";
  EXPECT_EQ(StateOf(running.job_id), JobState::kRunning);
}

TEST_P(ListTest, JobThatEndsAtTheVeryMomentIsNotPurged) {
  const std::string id = Submit(MakeJob()).id;
  ASSERT_TRUE(store_->Cancel("default", id).ok());
  EXPECT_EQ(store_->PurgeJobs(clock_.Now(), 10)->jobs, 0);
  EXPECT_EQ(store_->PurgeJobs(clock_.Now() + absl::Microseconds(1), 10)->jobs, 1);
}

TEST_P(ListTest, LeftOverFilesAreThoseThatNoRowNames) {
  Submit(MakeJob());
  const AttemptRef ref = Claim().ref;
  ASSERT_TRUE(store_->Commit(ref, MakeArtifact("a.mp4"), "").ok());
  ASSERT_TRUE(store_->InsertAsset({.id = "x", .tenant = "t", .file_name = "x.png"}).ok());
  EXPECT_THAT(*store_->FindLeftOverFiles({"b.mp4", "x.png", "a.mp4", "y", ""}),
              testing::ElementsAre("b.mp4", "y", ""));
  EXPECT_THAT(*store_->FindLeftOverFiles({}), testing::IsEmpty());
}

TEST_P(ListTest, LongQueueWithHolesIsReadInItsOrder) {
  std::map<Priority, std::vector<std::string>> by_class;
  std::vector<std::string> ids;
  NewJob job = MakeJob();
  for (int i = 0; i < 2300; ++i) {
    job.priority = kPrioritiesHighestFirst[i % 7 % 3];
    store_->Submit(job, [&, priority = job.priority](absl::StatusOr<SubmitResult> result) {
      ids.push_back(result->job.id);
      by_class[priority].push_back(result->job.id);
    });
  }
  const std::string last = Submit(MakeJob()).id;  // when this returns, all of them are there
  by_class[Priority::kNormal].push_back(last);
  std::set<std::string> left;
  for (int i = 0; i < 40; ++i) {
    const AttemptRef ref = Claim().ref;
    if (i % 2 == 0) {
      Fail(ref, FailureCause::kInternal);
    } else {
      left.insert(ref.job_id);
    }
  }
  for (size_t i = 0; i < ids.size(); i += 30) {
    ASSERT_TRUE(store_->Cancel("default", ids[i]).ok());
    left.insert(ids[i]);
  }
  std::vector<std::string> want;
  for (const Priority priority : kPrioritiesHighestFirst) {
    for (const std::string& id : by_class[priority]) {
      if (!left.contains(id)) want.push_back(id);
    }
  }
  EXPECT_GT(want.size(), 2000u);
  EXPECT_EQ(QueueIds(), want);
}

TEST_P(ListTest, QueueIsInTheOrderOfClaims) {
  NewJob job = MakeJob();
  const std::string normal = Submit(job).id, normal2 = Submit(job).id;
  job.priority = Priority::kHigh;
  const std::string high = Submit(job).id;
  job.priority = Priority::kLow;
  const std::string low = Submit(job).id;
  std::vector<std::string> order = QueueIds();
  EXPECT_THAT(order, testing::ElementsAre(high, normal, normal2, low));
  while (!order.empty()) {
    EXPECT_EQ(Claim().ref.job_id, order.front());
    order.erase(order.begin());
    EXPECT_EQ(QueueIds(), order);
  }
}

TEST_P(ListTest, QueueIsReadInTheOrderOfThePolicyWithBackOffs) {
  NewJob job = MakeJob();
  job.priority = Priority::kLow;
  const std::string low = Submit(job).id;
  job = MakeJob("other");
  const std::string normal = Submit(job).id;
  const ClaimedAttempt claimed = Claim();
  ASSERT_EQ(claimed.ref.job_id, low);
  EXPECT_EQ(store_->Queue()->size(), 1u);
  const Job failed = Fail(claimed.ref, FailureCause::kInternal);
  const auto queue = store_->Queue();
  ASSERT_TRUE(queue.ok()) << queue.status();
  ASSERT_EQ(queue->size(), 2u);
  EXPECT_EQ((*queue)[0].id, normal);
  EXPECT_EQ((*queue)[0].model, "other");
  EXPECT_EQ((*queue)[0].retry_not_before, absl::InfinitePast());
  EXPECT_EQ((*queue)[1].id, low);
  EXPECT_EQ((*queue)[1].priority, Priority::kLow);
  EXPECT_EQ((*queue)[1].retry_not_before, *failed.retry_not_before);
  // The wall clock was put back by an hour: what it wrote before holds no job back.
  clock_.JumpWall(-absl::Hours(1));
  EXPECT_EQ((*store_->Queue())[1].retry_not_before, absl::InfinitePast());
}

TEST_P(ListTest, JobIsFoundByItsTenantsRequestId) {
  NewJob job = MakeJob();
  job.request_id = "once";
  const std::string id = Submit(job).id;
  Submit(MakeJob());
  const auto found = store_->FindByRequestId("default", "once");
  ASSERT_TRUE(found.ok() && found->has_value()) << found.status();
  EXPECT_EQ((*found)->id, id);
  EXPECT_EQ((*found)->request_fingerprint, "fingerprint");
  EXPECT_EQ(*store_->FindByRequestId("default", "twice"), std::nullopt);
  EXPECT_EQ(*store_->FindByRequestId("default", ""), std::nullopt);
  EXPECT_EQ(*store_->FindByRequestId("other", "once"), std::nullopt);
  ASSERT_TRUE(store_->Cancel("default", id).ok());
  EXPECT_TRUE((*store_->FindByRequestId("default", "once")).has_value());
  ASSERT_TRUE(store_->Delete("default", id).ok());
  EXPECT_EQ(*store_->FindByRequestId("default", "once"), std::nullopt);
}

TEST_P(ListTest, LoadCountsJobsByClassAndState) {
  NewJob job = MakeJob();
  Submit(job);
  Submit(job);
  job.priority = Priority::kLow;
  const std::string low = Submit(job).id;
  Claim();
  ASSERT_TRUE(store_->Cancel("default", low).ok());
  const auto load = store_->Load();
  ASSERT_TRUE(load.ok());
  EXPECT_EQ(load->queued.at(Priority::kNormal), 1);
  EXPECT_EQ(load->queued.at(Priority::kLow), 0);
  EXPECT_EQ(load->queued.at(Priority::kHigh), 0);
  EXPECT_EQ(load->jobs.at(JobState::kQueued), 1);
  EXPECT_EQ(load->jobs.at(JobState::kRunning), 1);
  EXPECT_EQ(load->jobs.at(JobState::kCancelled), 1);
  EXPECT_EQ(load->jobs.at(JobState::kSucceeded), 0);
  ASSERT_TRUE(store_->Delete("default", low).ok());
  EXPECT_EQ(store_->Load()->jobs.at(JobState::kCancelled), 0);
}

}  // namespace
}  // namespace kino::scheduler
