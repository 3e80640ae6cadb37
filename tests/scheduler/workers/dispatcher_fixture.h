// A dispatcher on a real store, registry and queue, whose strand is the test's own thread and whose
// judge is the test: it keeps the questions and answers them when it likes.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/workers/dispatcher.h"
#include "tests/scheduler/store/store_fixture.h"
#include "tests/support/fake_clock.h"
#include "tests/support/manual_strand.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {

struct Question {
  std::string worker;
  SessionId session = 0;
  std::string job_id;
  std::function<void(Verdict)> done;
};

struct Started {
  SessionId session = 0;
  AttemptRef ref;
  absl::Status assigned;
};

inline const Verdict kFitsHere{.fit = Fit::kHere, .error = {}};
inline const Verdict kFitsElsewhere{.fit = Fit::kElsewhere, .error = {}};
inline const Verdict kFitsNowhere{
    .fit = Fit::kNowhere, .error = absl::FailedPreconditionError("needs 9 GiB, 'w' has 4 GiB")};
inline const Verdict kVerdicts[] = {kFitsHere, kFitsElsewhere, kFitsNowhere};

class JudgeTest : public testing::Test {
 protected:
  using Decide = std::function<Verdict(const std::string& worker, const std::string& job_id)>;

  explicit JudgeTest(const std::string& vfs = "") : vfs_(vfs) { Begin(); }
  ~JudgeTest() override { End(); }

  // What a process does when it starts: on the store's file, with nothing else.
  void Begin() {
    auto store =
        OpenSqliteJobStore({.path = folder_.File("jobs.db"), .vfs = vfs_}, {}, clock_, random_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    strand_ = std::make_shared<ManualStrand>();
    registry_ = std::make_unique<WorkerRegistry>(LeaseOptions(), clock_);
    queue_ = std::make_unique<JobQueue>(clock_, RetryPolicy().max_backoff);
    const auto post = [strand = strand_](absl::AnyInvocable<void()> task) {
      strand->Post(std::move(task));
    };
    dispatcher_ = std::make_unique<Dispatcher>(
        *store_, *registry_, *queue_, post,
        [this](const Reservation& reservation, ClaimedAttempt claimed,
               const absl::Status& assigned) {
          started_.push_back(
              {.session = reservation.session, .ref = claimed.ref, .assigned = assigned});
          if (assigned.ok()) return;
          store_->Fail(claimed.ref, {.cause = FailureCause::kInterrupted, .error = assigned},
                       [](const auto&) {});
        },
        [this](const Reservation& reservation, const QueuedJob& job,
               std::function<void(Verdict)> done) {
          asked_.push_back({.worker = reservation.worker.name,
                            .session = reservation.session,
                            .job_id = job.id,
                            .done = done});
          if (decide_) done(decide_(reservation.worker.name, job.id));
        },
        [this](const std::string& message) { OnLog(message); });
    store_->AddChangeListener([this, post](const std::vector<Change>& changes) {
      post([this, changes] {
        for (const Change& change : changes) dispatcher_->OnChange(change);
      });
    });
  }
  void End() {
    if (dispatcher_ != nullptr) dispatcher_->Stop();
    store_.reset();
    strand_->End();
    dispatcher_.reset();
  }

  virtual void OnLog(const std::string& message) { ADD_FAILURE() << message; }

  // From now on questions are answered before the judge returns.
  void AnswerAtOnce(Decide decide) { decide_ = std::move(decide); }
  void AnswerAtOnce(const Verdict& verdict) {
    decide_ = [verdict](const auto&, const auto&) { return verdict; };
  }

  // When this returns, the store has carried out every write, and its answers wait on the strand.
  void Flush() { EXPECT_TRUE(absl::IsNotFound(store_->Expire("no such job").status())); }
  // Runs one task of the strand with all that the store has answered before it. False: nothing is
  // under way any more.
  bool Step() {
    Flush();
    return strand_->RunOne();
  }
  void Settle() {
    while (Step()) {
    }
  }

  std::string SubmitOnly(NewJob job) {
    job.tenant = "default";
    const auto submitted = store_->Submit(std::move(job));
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    return submitted.ok() ? submitted->job.id : "";
  }
  std::string Submit(NewJob job) {
    const std::string id = SubmitOnly(std::move(job));
    Settle();
    return id;
  }
  std::string Submit(const std::string& model = "ltx") {
    NewJob job;
    job.model = model;
    return Submit(std::move(job));
  }
  SessionId ConnectOnly(const std::string& name, int slots) {
    return registry_
        ->Hello({.name = name, .process_id = 1, .max_attempts = slots, .models = {{"ltx", true}}})
        ->session;
  }
  SessionId Connect(const std::string& name, int slots) {
    const SessionId session = ConnectOnly(name, slots);
    dispatcher_->Pump();
    Settle();
    return session;
  }
  void Disconnect(SessionId session) {
    registry_->Disconnected(session);
    dispatcher_->Pump();
    Settle();
  }
  JobState Cancel(const std::string& id) {
    const auto job = store_->Cancel("default", id);
    EXPECT_TRUE(job.ok()) << job.status();
    Settle();
    return job.ok() ? job->state : JobState::kFailed;
  }
  void Answer(const Question& question, const Verdict& verdict) {
    question.done(verdict);
    Settle();
  }
  void Finish(const AttemptRef& ref) {
    ASSERT_TRUE(store_->Commit(ref, {.file_name = ref.job_id}, "").ok());
    registry_->Release(ref);
    dispatcher_->Pump();
    Settle();
  }
  // The last of `count` questions, of which there have been no more.
  Question Asked(size_t count) {
    EXPECT_EQ(asked_.size(), count);
    return asked_.empty() ? Question() : asked_.back();
  }
  // The last of `count` attempts, likewise.
  AttemptRef StartedLast(size_t count) {
    EXPECT_EQ(started_.size(), count);
    return started_.empty() ? AttemptRef() : started_.back().ref;
  }
  Job Read(const std::string& id) {
    auto job = store_->GetAnyTenant(id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *std::move(job) : Job();
  }
  // The job as it was before anybody looked at it.
  void ExpectUntouched(const std::string& id) {
    const Job job = Read(id);
    EXPECT_EQ(job.state, JobState::kQueued);
    EXPECT_EQ(job.state_number, 1);
    EXPECT_TRUE(job.attempts.empty());
    EXPECT_EQ(job.failures.interruptions, 0);
    EXPECT_FALSE(job.start_time);
  }
  int reserved() const {
    int reserved = 0;
    for (const WorkerSnapshot& worker : registry_->Snapshot()) reserved += worker.reserved;
    return reserved;
  }
  std::set<std::string> UnfitOf(const std::string& name) {
    for (const ReadyWorker& worker : registry_->Ready()) {
      if (worker.name == name) return worker.unfit_jobs;
    }
    ADD_FAILURE() << "'" << name << "' is not ready";
    return {};
  }

  const std::string vfs_;
  ScratchFolder folder_;
  FakeClock clock_;
  SeededRandom random_{3};
  Decide decide_;
  std::vector<Question> asked_;
  std::vector<Started> started_;
  std::shared_ptr<ManualStrand> strand_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<WorkerRegistry> registry_;
  std::unique_ptr<JobQueue> queue_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

// Every job fits.
class DispatcherTest : public JudgeTest {
 protected:
  DispatcherTest() { AnswerAtOnce(kFitsHere); }
};

}  // namespace kino::scheduler
