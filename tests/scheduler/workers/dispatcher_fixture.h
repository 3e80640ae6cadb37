// A dispatcher on a real store and registry, on a folder in memory where there is one.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "scheduler/workers/dispatcher.h"
#include "tests/scheduler/store/store_fixture.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {

class DispatcherTest : public testing::Test {
 protected:
  // Without a judge of the test's own every job fits.
  explicit DispatcherTest(
      Dispatcher::Judge judge = [](const Reservation&, const Job&,
                                   const std::function<void(Verdict)>& done) { done({}); },
      const std::string& vfs = "") {
    auto store =
        OpenSqliteJobStore({.path = folder_.File("jobs.db"), .vfs = vfs}, {}, clock_, random_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    dispatcher_ = std::make_unique<Dispatcher>(
        *store_, registry_,
        [this](SessionId session, ClaimedAttempt claimed) {
          absl::MutexLock lock(&mutex_);
          started_.emplace_back(session, claimed.ref);
        },
        std::move(judge), [this](const std::string& message) { OnLog(message); });
    store_->AddChangeListener(
        [this](const std::vector<Change>& changes) { dispatcher_->OnChanges(changes); });
  }
  ~DispatcherTest() override {
    if (dispatcher_ != nullptr) dispatcher_->Stop();
    store_.reset();
  }

  virtual void OnLog(const std::string& message) { ADD_FAILURE() << message; }

  std::string Submit(NewJob job) {
    job.tenant = "default";
    const auto submitted = store_->Submit(std::move(job));
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    return submitted.ok() ? submitted->job.id : "";
  }
  std::string Submit(const std::string& model = "ltx") {
    NewJob job;
    job.model = model;
    return Submit(std::move(job));
  }
  SessionId Connect(const std::string& name, int slots) {
    const SessionId session =
        registry_
            .Hello(
                {.name = name, .process_id = 1, .max_attempts = slots, .models = {{"ltx", true}}})
            ->session;
    dispatcher_->Pump();
    return session;
  }
  // Waits until `count` attempts have been started in all; gives the last.
  AttemptRef AwaitStarted(size_t count) {
    absl::MutexLock lock(&mutex_);
    AwaitSize(started_, count, "started");
    return started_.empty() ? AttemptRef() : started_.back().second;
  }
  // Waits until `seen` has `count` elements.
  template <typename Seen>
  void AwaitSize(const Seen& seen, size_t count, const char* what)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto is_there = [&] { return seen.size() >= count; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&is_there), absl::Seconds(60)))
        << seen.size() << " of " << count << " " << what;
  }
  void Finish(const AttemptRef& ref) {
    ASSERT_TRUE(store_->Commit(ref, {.file_name = ref.job_id}, "").ok());
    registry_.Release(ref);
    dispatcher_->Pump();
  }
  // When this returns, what was under way has been answered, and what followed from it up to the
  // fifth time.
  void Settle() {
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(store_->ExpireDue().ok());
  }
  // Writes that are queued while `act` runs are carried out afterwards, in one transaction.
  void WhileStoreIsBusy(const std::function<void()>& act) {
    absl::Notification begun;
    const auto ended = std::make_shared<absl::Notification>();  // its waiter wakes up later
    store_->ExpireDue([&begun, ended](const auto&) {
      begun.Notify();
      ended->WaitForNotification();
    });
    begun.WaitForNotification();
    act();
    ended->Notify();
  }
  size_t started() {
    absl::MutexLock lock(&mutex_);
    return started_.size();
  }
  Job Read(const std::string& id) {
    auto job = store_->GetAnyTenant(id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *std::move(job) : Job();
  }
  int reserved() const {
    int reserved = 0;
    for (const WorkerSnapshot& worker : registry_.Snapshot()) reserved += worker.reserved;
    return reserved;
  }

  ScratchFolder folder_;
  FakeClock clock_;
  SeededRandom random_{3};
  WorkerRegistry registry_{LeaseOptions(), clock_};
  absl::Mutex mutex_;
  std::vector<std::pair<SessionId, AttemptRef>> started_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

}  // namespace kino::scheduler
