// Answers of a judge that come late, twice, to nobody, from many threads, or while the disk is bad;
// and whatever else happens between two tasks of the strand.
#include <algorithm>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "tests/scheduler/store/fault_vfs.h"
#include "tests/scheduler/workers/dispatcher_fixture.h"

namespace kino::scheduler {
namespace {

TEST_F(JudgeTest, SecondAnswerDoesNothing) {
  for (const Verdict& first : kVerdicts) {
    for (const Verdict& second : kVerdicts) {
      SCOPED_TRACE(testing::Message()
                   << static_cast<int>(first.fit) << " then " << static_cast<int>(second.fit));
      const size_t before = asked_.size(), started_before = started_.size();
      const SessionId session = Connect("w", 1);
      const std::string id = Submit();
      const Question question = Asked(before + 1);
      question.done(first);
      question.done(second);
      Settle();
      Answer(question, second);
      const bool has_started = first.fit == Fit::kHere;
      EXPECT_EQ(started_.size(), started_before + (has_started ? 1 : 0));
      EXPECT_EQ(Read(id).state, has_started                    ? JobState::kRunning
                                : first.fit == Fit::kElsewhere ? JobState::kQueued
                                                               : JobState::kFailed);
      EXPECT_EQ(reserved(), 0);
      EXPECT_EQ(asked_.size(), before + 1);
      if (has_started) Finish(StartedLast(started_before + 1));
      Cancel(id);
      Disconnect(session);
    }
  }
}

TEST_F(JudgeTest, StopLeavesJudgedJobsQueuedWhateverIsAnsweredLater) {
  std::vector<std::string> ids;
  Connect("w", 3);
  for (int i = 0; i < 3; ++i) ids.push_back(Submit());
  ASSERT_EQ(asked_.size(), 3u);
  EXPECT_EQ(reserved(), 3);
  asked_[2].done(kFitsHere);  // on its way when Stop is called
  dispatcher_->Stop();
  EXPECT_EQ(reserved(), 0);
  Settle();
  for (size_t i = 0; i < 3; ++i) Answer(asked_[i], kVerdicts[i]);
  for (const std::string& id : ids) ExpectUntouched(id);
  EXPECT_TRUE(started_.empty());
  EXPECT_EQ(reserved(), 0);
  End();
  for (size_t i = 0; i < 3; ++i) asked_[i].done(kVerdicts[2 - i]);
  strand_->RunAll();
}

// What may happen at any moment to a job and its worker.
struct Disturbance {
  const char* name;
  void (*act)(JobStore&, WorkerRegistry&, Dispatcher&, SessionId, const std::string& id);
};
constexpr Disturbance kDisturbances[] = {
    {"nothing", [](JobStore&, WorkerRegistry&, Dispatcher&, SessionId, const std::string&) {}},
    {"cancel", [](JobStore& store, WorkerRegistry&, Dispatcher&, SessionId,
                  const std::string& id) { EXPECT_TRUE(store.Cancel("default", id).ok()); }},
    {"expiry", [](JobStore& store, WorkerRegistry&, Dispatcher&, SessionId,
                  const std::string& id) { store.Expire(id).IgnoreError(); }},
    {"failed, then requeued",
     [](JobStore& store, WorkerRegistry&, Dispatcher&, SessionId, const std::string& id) {
       store.FailQueued(id, absl::InternalError("the model is gone")).IgnoreError();
       store.Requeue("default", id).IgnoreError();
     }},
    {"its worker goes",
     [](JobStore&, WorkerRegistry& registry, Dispatcher& dispatcher, SessionId session,
        const std::string&) {
       registry.Disconnected(session);
       dispatcher.Pump();
     }},
    {"its worker connects anew",
     [](JobStore&, WorkerRegistry& registry, Dispatcher& dispatcher, SessionId,
        const std::string&) {
       EXPECT_TRUE(
           registry
               .Hello({.name = "w", .process_id = 2, .max_attempts = 1, .models = {{"ltx", true}}})
               .ok());
       dispatcher.Pump();
     }},
    {"its worker drains",
     [](JobStore&, WorkerRegistry& registry, Dispatcher& dispatcher, SessionId session,
        const std::string&) {
       registry.StartDraining(session).IgnoreError();
       dispatcher.Pump();
     }},
    {"its device is put out",
     [](JobStore&, WorkerRegistry& registry, Dispatcher& dispatcher, SessionId,
        const std::string&) {
       registry.SetOut("", true);
       dispatcher.Pump();
     }},
    {"hold", [](JobStore&, WorkerRegistry&, Dispatcher& dispatcher, SessionId,
                const std::string&) { dispatcher.SetHold("the disk is full"); }},
    {"stop", [](JobStore&, WorkerRegistry&, Dispatcher& dispatcher, SessionId, const std::string&) {
       dispatcher.Stop();
     }}};

class InterleavingTest : public JudgeTest,
                         public testing::WithParamInterface<std::tuple<Disturbance, Verdict>> {
 protected:
  // Runs the life of a job up to its `step`-th task, disturbs it there and lets everything end.
  // False: it has fewer tasks.
  bool Run(int step) {
    const auto& [disturbance, verdict] = GetParam();
    started_.clear();
    AnswerAtOnce(verdict);
    const SessionId session = ConnectOnly("w", 1);
    NewJob job;
    job.model = "ltx";
    const std::string id = SubmitOnly(std::move(job));
    for (int i = 0; i < step; ++i) {
      if (!Step()) return false;
    }
    Flush();
    disturbance.act(*store_, *registry_, *dispatcher_, session, id);
    Settle();
    ExpectInOrder(id);
    // And once more on the same ground: whatever happened, everything can go on.
    dispatcher_->SetHold("");
    registry_->SetOut("", false);
    dispatcher_->Pump();
    Settle();
    ExpectInOrder(id);
    return true;
  }
  void ExpectInOrder(const std::string& id) {
    EXPECT_EQ(reserved(), 0) << "a slot was forgotten";
    EXPECT_EQ(strand_->waiting(), 0u);
    const Job found = Read(id);
    ASSERT_EQ(started_.size(), found.attempts.size()) << "an attempt was not handed to Start";
    int running = 0;
    for (size_t i = 0; i < started_.size(); ++i) {
      const Attempt& attempt = found.attempts[i];
      EXPECT_EQ(attempt.token, started_[i].ref.token);
      if (attempt.end_time) {
        EXPECT_EQ(attempt.cause, FailureCause::kInterrupted);
        EXPECT_FALSE(started_[i].assigned.ok());
      } else {
        EXPECT_TRUE(started_[i].assigned.ok());
        ++running;
      }
    }
    EXPECT_EQ(running, found.state == JobState::kRunning ? 1 : 0);
    EXPECT_EQ(queue_->Contains(id), found.state == JobState::kQueued);
    // A job that waits does so for a reason, and is not kept from the next worker.
    if (found.state != JobState::kQueued) return;
    const std::vector<ReadyWorker> ready = registry_->Ready();
    const bool can_start = PickNext(queue_->Heads(ready), ready).has_value();
    const std::string what = std::get<0>(GetParam()).name;
    if (what != "stop" && dispatcher_->hold().empty()) {
      EXPECT_FALSE(can_start);
    }
    const ReadyWorker other{.name = "other", .models = {"ltx"}};
    EXPECT_EQ(queue_->Heads({other}).jobs.size(), 1u) << "the job is still held";
  }
};

TEST_P(InterleavingTest, JobAndSlotAreLeftInOrder) {
  int step = 0;
  for (; step < 50; ++step) {
    SCOPED_TRACE(testing::Message() << "disturbed after " << step << " tasks");
    if (!Run(step) || HasFailure()) break;
    End();
    std::filesystem::remove_all(folder_.File("jobs.db"));
    std::filesystem::remove_all(folder_.File("jobs.db-wal"));
    std::filesystem::remove_all(folder_.File("jobs.db-shm"));
    Begin();
  }
  EXPECT_GE(step, std::get<1>(GetParam()).fit == Fit::kElsewhere ? 3 : 4);
  EXPECT_LT(step, 20);
}

std::string NameOf(const testing::TestParamInfo<std::tuple<Disturbance, Verdict>>& tested) {
  std::string name = std::get<0>(tested.param).name;
  std::erase_if(name, [](char c) { return c == ' ' || c == ','; });
  const char* fits[] = {"Here", "Elsewhere", "Nowhere"};
  return name + fits[static_cast<int>(std::get<1>(tested.param).fit)];
}
INSTANTIATE_TEST_SUITE_P(All, InterleavingTest,
                         testing::Combine(testing::ValuesIn(kDisturbances),
                                          testing::ValuesIn(kVerdicts)),
                         NameOf);

// For the sanitizers: no answer touches anything once the strand has ended.
TEST_F(JudgeTest, AnswersMayRaceWithTheEnd) {
  Connect("w", 4);
  for (int i = 0; i < 4; ++i) Submit();
  ASSERT_EQ(asked_.size(), 4u);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([done = asked_[i].done, i] {
      for (int k = 0; k < 3; ++k) done(kVerdicts[i % 3]);
    });
  }
  strand_->RunAll();
  End();
  for (std::thread& thread : threads) thread.join();
}

TEST_F(JudgeTest, EveryJobRunsOnceThoughAnswersComeFromManyThreads) {
  constexpr size_t kJobs = 120;
  for (const char* worker : {"a-big", "small-1", "small-2"}) Connect(worker, 2);
  for (size_t i = 0; i < kJobs; ++i) Submit();
  std::set<std::string> jobs;
  size_t answered = 0, finished = 0;
  while (finished < kJobs) {
    const size_t open = asked_.size();
    ASSERT_GT(open, answered) << "nobody is asked, and " << jobs.size() << " jobs have run";
    std::vector<std::thread> judges;
    for (size_t t = 0; t < 4; ++t) {
      judges.emplace_back([&, t] {
        for (size_t i = answered + t; i < open; i += 4) {
          const bool fits = asked_[i].worker == "a-big" || random_.Next() % 2 == 0;
          asked_[i].done(fits ? kFitsHere : kFitsElsewhere);
        }
      });
    }
    for (std::thread& judge : judges) judge.join();
    answered = open;
    Settle();
    for (; finished < started_.size(); ++finished) {
      EXPECT_EQ(started_[finished].ref.attempt, 1);
      jobs.insert(started_[finished].ref.job_id);
      Finish(started_[finished].ref);
    }
  }
  EXPECT_EQ(jobs.size(), kJobs);
}

class JudgeOnABadDiskTest : public JudgeTest {
 protected:
  JudgeOnABadDiskTest() : JudgeTest(FaultVfs()) {}
  ~JudgeOnABadDiskTest() override { HealFaults(); }

  void OnLog(const std::string& message) override { logged_.push_back(message); }
  // Until nothing is under way: the store answers, though with a refusal.
  void SettleBadly() {
    do {
      store_->Expire("no such job").IgnoreError();
    } while (strand_->RunOne());
  }

  std::vector<std::string> logged_;
};

TEST_F(JudgeOnABadDiskTest, JobWaitsForTheNextPumpWhenItsEndOrItsLeaseCannotBeStored) {
  const std::string a = Submit();
  Connect("w", 1);
  const Question first = Asked(1);
  Connect("v", 1);
  PlanFault({.fault = Fault::kDiskFull, .count = 0, .is_lasting = true});
  first.done(kFitsNowhere);
  SettleBadly();
  ASSERT_EQ(logged_.size(), 1u);
  EXPECT_TRUE(absl::StrContains(logged_[0], "failing a job that does not fit")) << logged_[0];
  EXPECT_TRUE(absl::StrContains(logged_[0], "RESOURCE_EXHAUSTED")) << logged_[0];
  EXPECT_EQ(asked_.size(), 1u) << "nobody asks in a circle";
  EXPECT_EQ(reserved(), 0);
  ExpectUntouched(a);
  dispatcher_->Pump();
  Asked(2).done(kFitsHere);
  SettleBadly();
  ASSERT_EQ(logged_.size(), 2u);
  EXPECT_TRUE(absl::StrContains(logged_[1], "claiming a job failed: RESOURCE_EXHAUSTED"))
      << logged_[1];
  EXPECT_EQ(asked_.size(), 2u);
  EXPECT_EQ(reserved(), 0);
  ExpectUntouched(a);
  HealFaults();
  dispatcher_->Pump();
  Answer(Asked(3), kFitsHere);
  EXPECT_EQ(StartedLast(1).job_id, a);
}

TEST_F(JudgeOnABadDiskTest, StoppedDispatcherHoldsItsTongue) {
  Submit();
  Submit();
  Connect("w", 2);
  ASSERT_EQ(asked_.size(), 2u);
  PlanFault({.fault = Fault::kDiskFull, .count = 0, .is_lasting = true});
  asked_[0].done(kFitsHere);
  asked_[1].done(kFitsNowhere);
  // The two verdicts and no more: what the store answers to them is to come after Stop.
  ASSERT_EQ(strand_->waiting(), 2u);
  strand_->RunOne();
  strand_->RunOne();
  dispatcher_->Stop();
  SettleBadly();
  EXPECT_THAT(logged_, testing::IsEmpty());
  EXPECT_EQ(reserved(), 0);
}

}  // namespace
}  // namespace kino::scheduler
