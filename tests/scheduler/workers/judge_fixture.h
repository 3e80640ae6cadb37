// A dispatcher whose judge is the test: it keeps the questions and answers them when it likes.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/scheduler/workers/dispatcher_fixture.h"

namespace kino::scheduler {

struct Question {
  std::string worker;
  SessionId session = 0;
  std::string job_id;
  std::function<void(Verdict)> done;
};

inline const Verdict kFitsHere{.fit = Fit::kHere, .error = {}};
inline const Verdict kFitsElsewhere{.fit = Fit::kElsewhere, .error = {}};
inline const Verdict kFitsNowhere{
    .fit = Fit::kNowhere, .error = absl::FailedPreconditionError("needs 9 GiB, 'w' has 4 GiB")};
inline const Verdict kVerdicts[] = {kFitsHere, kFitsElsewhere, kFitsNowhere};

class JudgeTest : public DispatcherTest {
 protected:
  using Decide = std::function<Verdict(const std::string& worker, const std::string& job_id)>;

  explicit JudgeTest(const std::string& vfs = "")
      : DispatcherTest(
            [this](const Reservation& reservation, const Job& job,
                   std::function<void(Verdict)> done) { Judge(reservation, job, std::move(done)); },
            vfs) {}

  // Before what the judge uses goes away.
  ~JudgeTest() override {
    if (dispatcher_ != nullptr) dispatcher_->Stop();
    store_.reset();
  }

  void Judge(const Reservation& reservation, const Job& job, std::function<void(Verdict)> done) {
    EXPECT_EQ(job.state, JobState::kQueued);
    Decide decide;
    {
      absl::MutexLock lock(&mutex_);
      asked_.push_back({.worker = reservation.worker.name,
                        .session = reservation.session,
                        .job_id = job.id,
                        .done = done});
      decide = decide_;
    }
    if (decide) done(decide(reservation.worker.name, job.id));
  }
  // From now on questions are answered before the judge returns.
  void AnswerAtOnce(Decide decide) {
    absl::MutexLock lock(&mutex_);
    decide_ = std::move(decide);
  }
  // Waits until there have been `count` questions in all; gives the last.
  Question AwaitAsked(size_t count) {
    absl::MutexLock lock(&mutex_);
    AwaitSize(asked_, count, "asked");
    return asked_.empty() ? Question() : asked_.back();
  }
  size_t asked() {
    absl::MutexLock lock(&mutex_);
    return asked_.size();
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
  std::set<std::string> UnfitOf(const std::string& worker) {
    const auto slot = registry_.Reserve({});
    EXPECT_TRUE(slot && slot->worker.name == worker);
    if (!slot) return {};
    registry_.CancelReservation(*slot);
    return slot->worker.unfit_jobs;
  }

  std::vector<Question> asked_ ABSL_GUARDED_BY(mutex_);
  Decide decide_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::scheduler
