// Answers of a judge that come late, twice, to nobody, from many threads, or while the disk is bad.
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "tests/scheduler/store/fault_vfs.h"
#include "tests/scheduler/workers/judge_fixture.h"

namespace kino::scheduler {
namespace {

TEST_F(JudgeTest, SecondAnswerDoesNothing) {
  for (const Verdict& first : kVerdicts) {
    for (const Verdict& second : kVerdicts) {
      SCOPED_TRACE(testing::Message()
                   << static_cast<int>(first.fit) << " then " << static_cast<int>(second.fit));
      const size_t before = asked(), started_before = started();
      const SessionId session = Connect("w", 1);
      const std::string id = Submit();
      const Question question = AwaitAsked(before + 1);
      WhileStoreIsBusy([&] {
        question.done(first);
        question.done(second);
      });
      Settle();
      question.done(second);
      Settle();
      const bool has_started = first.fit == Fit::kHere;
      EXPECT_EQ(started(), started_before + (has_started ? 1 : 0));
      EXPECT_EQ(Read(id).state, has_started                    ? JobState::kRunning
                                : first.fit == Fit::kElsewhere ? JobState::kQueued
                                                               : JobState::kFailed);
      EXPECT_EQ(reserved(), 0);
      if (has_started) Finish(AwaitStarted(started_before + 1));
      ASSERT_TRUE(store_->Cancel("default", id).ok());
      registry_.Disconnected(session);
    }
  }
}

TEST_F(JudgeTest, StopLeavesJudgedJobsQueuedWhateverIsAnsweredLater) {
  std::vector<std::string> ids;
  Connect("w", 3);
  for (size_t i = 1; i <= 3; ++i) {
    ids.push_back(Submit());
    AwaitAsked(i);
  }
  EXPECT_EQ(reserved(), 3);
  dispatcher_->Stop();
  EXPECT_EQ(reserved(), 0);
  std::vector<Question> questions;
  {
    absl::MutexLock lock(&mutex_);
    questions = asked_;
  }
  for (size_t i = 0; i < 3; ++i) questions[i].done(kVerdicts[i]);
  Settle();
  for (const std::string& id : ids) ExpectUntouched(id);
  EXPECT_EQ(started(), 0u);
  EXPECT_EQ(reserved(), 0);
  store_.reset();
  dispatcher_.reset();
  for (size_t i = 0; i < 3; ++i) questions[i].done(kVerdicts[2 - i]);
}

TEST_F(JudgeTest, JobFoundForAStoppedDispatcherIsNotJudged) {
  Submit();
  WhileStoreIsBusy([&] {
    Connect("w", 1);
    dispatcher_->Stop();
  });
  Settle();
  EXPECT_EQ(asked(), 0u);
  EXPECT_EQ(reserved(), 0);
}

// For the sanitizers: no answer touches the store once Stop has returned.
TEST_F(JudgeTest, AnswersMayRaceWithTheEndOfTheStore) {
  Connect("w", 4);
  for (size_t i = 1; i <= 4; ++i) {
    Submit();
    AwaitAsked(i);
  }
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < 4; ++i) {
      threads.emplace_back([done = asked_[i].done, i] { done(kVerdicts[i % 3]); });
    }
  }
  dispatcher_->Stop();
  store_.reset();
  for (std::thread& thread : threads) thread.join();
}

TEST_F(JudgeTest, EveryJobRunsOnceThoughAnswersComeFromManyThreads) {
  constexpr size_t kJobs = 120;
  for (const char* worker : {"a-big", "small-1", "small-2"}) Connect(worker, 2);
  absl::Mutex mutex;
  size_t next = 0;
  bool is_over = false;
  std::vector<std::thread> judges;
  for (int t = 0; t < 4; ++t) {
    judges.emplace_back([&] {
      while (true) {
        Question question;
        {
          absl::MutexLock lock(&mutex);
          const auto has_one = [&] { return is_over || asked() > next; };
          while (!has_one()) {
            mutex.Unlock();
            std::this_thread::yield();
            mutex.Lock();
          }
          if (is_over) return;
          absl::MutexLock asked_lock(&mutex_);
          question = asked_[next++];
        }
        const bool fits = question.worker == "a-big" || random_.Next() % 2 == 0;
        question.done(fits ? kFitsHere : kFitsElsewhere);
      }
    });
  }
  for (size_t i = 0; i < kJobs; ++i) Submit();
  std::set<std::string> jobs;
  for (size_t i = 0; i < kJobs; ++i) {
    AwaitStarted(i + 1);
    AttemptRef ref;
    {
      absl::MutexLock lock(&mutex_);
      ref = started_[i].second;
    }
    EXPECT_EQ(ref.attempt, 1);
    jobs.insert(ref.job_id);
    Finish(ref);
  }
  EXPECT_EQ(jobs.size(), kJobs);
  {
    absl::MutexLock lock(&mutex);
    is_over = true;
  }
  for (std::thread& judge : judges) judge.join();
}

class JudgeOnABadDiskTest : public JudgeTest {
 protected:
  JudgeOnABadDiskTest() : JudgeTest(FaultVfs()) {}
  ~JudgeOnABadDiskTest() override { HealFaults(); }

  void OnLog(const std::string& message) override {
    absl::MutexLock lock(&mutex_);
    logged_.push_back(message);
  }
  void AwaitLogged(const std::string& text) {
    absl::MutexLock lock(&mutex_);
    const auto is_there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !logged_.empty() && absl::StrContains(logged_.back(), text);
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&is_there), absl::Seconds(60))) << text;
  }

  std::vector<std::string> logged_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(JudgeOnABadDiskTest, JobWaitsForTheNextPumpWhenItsEndOrItsLeaseCannotBeStored) {
  const std::string a = Submit();
  Connect("w", 1);
  const Question first = AwaitAsked(1);
  Connect("v", 1);
  Settle();
  PlanFault({.fault = Fault::kDiskFull, .count = 0, .is_lasting = true});
  first.done(kFitsNowhere);
  AwaitLogged("failing a job that does not fit failed: RESOURCE_EXHAUSTED");
  Settle();
  EXPECT_EQ(asked(), 1u) << "nobody asks in a circle";
  EXPECT_EQ(reserved(), 0);
  ExpectUntouched(a);
  dispatcher_->Pump();
  const Question second = AwaitAsked(2);
  second.done(kFitsHere);
  AwaitLogged("claiming a job failed: RESOURCE_EXHAUSTED");
  Settle();
  EXPECT_EQ(asked(), 2u);
  EXPECT_EQ(reserved(), 0);
  ExpectUntouched(a);
  HealFaults();
  dispatcher_->Pump();
  AwaitAsked(3).done(kFitsHere);
  EXPECT_EQ(AwaitStarted(1).job_id, a);
}

}  // namespace
}  // namespace kino::scheduler
