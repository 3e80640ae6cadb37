#include <map>
#include <optional>

#include "absl/synchronization/mutex.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

using EventsTest = StoreTest;
KINO_FOR_EVERY_STORE(EventsTest);

TEST_P(EventsTest, EventsAreNumberedWithoutGapsAndTellTheStory) {
  const std::string id = Submit(MakeJob()).id;
  Fail(Claim().ref, FailureCause::kLeaseLost);
  clock_.Advance(absl::Minutes(1));
  const ClaimedAttempt second = Claim();
  ASSERT_TRUE(store_->Cancel("default", id).ok());
  Fail(second.ref, FailureCause::kCancelled);
  const std::vector<StateEvent> events = Events(id);
  const std::vector<std::tuple<JobState, int, std::string>> want = {
      {JobState::kQueued, 0, ""},
      {JobState::kRunning, 1, ""},
      {JobState::kQueued, 1, "it broke"},
      {JobState::kRunning, 2, ""},
      {JobState::kRunning, 2, "cancel requested"},
      {JobState::kCancelled, 2, "cancelled"}};
  ASSERT_EQ(events.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(events[i].number, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(std::tuple(events[i].state, events[i].attempt, events[i].reason), want[i]) << i;
  }
  EXPECT_EQ(events[5].time, clock_.Now());
  EXPECT_EQ(store_->GetAnyTenant(id)->state_number, 6);
}

TEST_P(EventsTest, ReadingGoesOnAfterANumber) {
  const std::string id = Submit(MakeJob()).id;
  Claim();
  EXPECT_EQ(store_->ReadEvents(id, 1, 10)->size(), 1u);
  EXPECT_EQ(store_->ReadEvents(id, 1, 10)->front().number, 2);
  EXPECT_TRUE(store_->ReadEvents(id, 2, 10)->empty());
  EXPECT_EQ(store_->ReadEvents(id, 0, 1)->size(), 1u);
  EXPECT_TRUE(absl::IsOutOfRange(store_->ReadEvents(id, 3, 10).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->ReadEvents("nonsense", 0, 10).status()));
}

TEST_P(EventsTest, CursorTellsAllChangesInOrderAndOutlivesTheProcess) {
  const std::string a = Submit(MakeJob()).id, b = Submit(MakeJob()).id;
  const int64_t cursor = *store_->LatestCursor();
  Claim();
  ASSERT_TRUE(store_->Cancel("default", b).ok());
  Reopen();
  const auto changes = store_->ReadChanges(cursor, 10);
  ASSERT_TRUE(changes.ok()) << changes.status();
  ASSERT_EQ(changes->size(), 2u);
  EXPECT_EQ((*changes)[0].job_id, a);
  EXPECT_EQ((*changes)[0].event.state, JobState::kRunning);
  EXPECT_EQ((*changes)[1].job_id, b);
  EXPECT_EQ((*changes)[1].event.state, JobState::kCancelled);
  EXPECT_EQ(*store_->LatestCursor(), (*changes)[1].cursor);
  EXPECT_TRUE(store_->ReadChanges((*changes)[1].cursor, 10)->empty());
  EXPECT_EQ(store_->ReadChanges(0, 3)->size(), 3u);
}

TEST_P(EventsTest, ChangesThatAreReadTellOfTheQueueWhatIsSoNow) {
  NewJob job = MakeJob("mochi");
  job.priority = Priority::kHigh;
  job.start_timeout = absl::Minutes(3);
  const std::string waits = Submit(job).id;
  const std::string runs = Submit(MakeJob()).id, again = Submit(MakeJob()).id;
  ASSERT_TRUE(store_->Claim(runs, "w")->has_value());
  Fail((*store_->Claim(again, "w"))->ref, FailureCause::kLeaseLost);
  const auto changes = store_->ReadChanges(0, 10);
  ASSERT_TRUE(changes.ok()) << changes.status();
  ASSERT_EQ(changes->size(), 6u);
  std::map<std::string, QueuedJob> queue;
  const auto read = store_->Queue();
  ASSERT_TRUE(read.ok()) << read.status();
  for (const QueuedJob& queued : *read) queue[queued.id] = queued;
  for (size_t i = 0; i < changes->size(); ++i) {
    SCOPED_TRACE(i);
    const std::optional<QueuedJob>& told = (*changes)[i].queued;
    // The first of the one that waits, and the last of the one that waits again.
    ASSERT_EQ(told.has_value(), i == 0 || i == 5);
    if (!told) continue;
    const QueuedJob& want = queue.at((*changes)[i].job_id);
    EXPECT_EQ(told->id, want.id);
    EXPECT_EQ(told->model, want.model);
    EXPECT_EQ(told->priority, want.priority);
    EXPECT_EQ(told->order, want.order);
    EXPECT_EQ(told->retry_not_before, want.retry_not_before);
    EXPECT_EQ(told->start_deadline, want.start_deadline);
  }
  EXPECT_EQ((*changes)[0].queued->start_deadline, clock_.Now() + absl::Minutes(3));
  EXPECT_GT((*changes)[5].queued->retry_not_before, clock_.Now());
  ASSERT_TRUE(store_->Cancel("default", waits).ok());
  EXPECT_FALSE(store_->ReadChanges(0, 10)->front().queued);
}

TEST_P(EventsTest, CursorNeverFallsWhenJobsAreDeleted) {
  const std::string id = Submit(MakeJob()).id;
  ASSERT_TRUE(store_->Cancel("default", id).ok());
  const int64_t cursor = *store_->LatestCursor();
  ASSERT_TRUE(store_->Delete("default", id).ok());
  Reopen();
  EXPECT_EQ(*store_->LatestCursor(), cursor);
  Submit(MakeJob());
  EXPECT_GT(*store_->LatestCursor(), cursor);
}

TEST_P(EventsTest, ListenerHearsEveryChangeBeforeItsCallerDoes) {
  absl::Mutex mutex;
  std::vector<Change> heard;
  const int64_t id = store_->AddChangeListener([&](const std::vector<Change>& changes) {
    absl::MutexLock lock(&mutex);
    heard.insert(heard.end(), changes.begin(), changes.end());
  });
  const auto count = [&] {
    absl::MutexLock lock(&mutex);
    return heard.size();
  };
  Submit(MakeJob());
  EXPECT_EQ(count(), 1u);
  Claim();
  EXPECT_EQ(count(), 2u);
  ASSERT_FALSE(store_->Submit(NewJob()).ok());
  EXPECT_EQ(count(), 2u) << "a refused operation tells nothing";
  store_->RemoveChangeListener(id);
  Submit(MakeJob());
  EXPECT_EQ(count(), 2u);
  const auto read = store_->ReadChanges(0, 10);
  ASSERT_EQ(read->size(), 3u);
  for (size_t i = 0; i < heard.size(); ++i) {
    EXPECT_EQ(heard[i].cursor, (*read)[i].cursor);
    EXPECT_EQ(heard[i].job_id, (*read)[i].job_id);
    EXPECT_EQ(heard[i].event.state, (*read)[i].event.state);
    EXPECT_EQ(heard[i].event.number, (*read)[i].event.number);
    EXPECT_EQ(heard[i].event.time, (*read)[i].event.time);
  }
}

TEST_P(EventsTest, WriteIsReadableInsideItsCallback) {
  absl::Mutex mutex;
  bool is_done = false;
  absl::Status read;
  store_->Submit(MakeJob(), [&](absl::StatusOr<SubmitResult> result) {
    absl::MutexLock lock(&mutex);
    read = store_->GetAnyTenant(result->job.id).status();
    is_done = true;
  });
  absl::MutexLock lock(&mutex);
  mutex.Await(absl::Condition(&is_done));
  EXPECT_TRUE(read.ok()) << read;
}

}  // namespace
}  // namespace kino::scheduler
