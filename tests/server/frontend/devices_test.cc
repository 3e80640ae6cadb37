// Devices that are out, where the store or the folder does not take what is to be noted.
#include "server/frontend/link/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/store/sqlite/open.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

using scheduler::AttemptRef;
using scheduler::DiskCall;

class DevicesTest : public ::testing::Test {
 protected:
  DevicesTest() {
    scheduler::StoreOptions options;
    options.retry.min_backoff = absl::ZeroDuration();
    store_ = *scheduler::OpenSqliteJobStore(
        {.path = folder_.path() + "/jobs.db", .vfs = disk_.Vfs()}, options, clock_, random_);
  }
  std::unique_ptr<Devices> Make() {
    auto devices =
        std::make_unique<Devices>(Devices::Parts{.store = *store_,
                                                 .clock = clock_,
                                                 .io = io_,
                                                 .registry = registry_,
                                                 .peers = peers_,
                                                 .commands = commands_,
                                                 .post =
                                                     [this](absl::AnyInvocable<void()> task) {
                                                       absl::MutexLock lock(&mutex_);
                                                       posted_.push_back(std::move(task));
                                                     },
                                                 .on_trusted = [] {},
                                                 .kill = [](const std::string&) {}},
                                  folder_.path() + "/devices_out", absl::Minutes(10));
    EXPECT_TRUE(devices->Start().ok());
    return devices;
  }
  // Runs what is posted, as the strand would; waits for it.
  void RunPosted() {
    std::vector<absl::AnyInvocable<void()>> tasks;
    {
      const auto has_some = [this]()
                                ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !posted_.empty(); };
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_some));
      tasks.swap(posted_);
    }
    for (auto& task : tasks) task();
  }
  // A job whose first attempt has crashed.
  AttemptRef Crash() {
    scheduler::NewJob job;
    job.tenant = "default";
    job.model = std::string("m");
    const std::string id = store_->Submit(std::move(job))->job.id;
    const AttemptRef ref = (*store_->Claim(id, "w"))->ref;
    EXPECT_TRUE(store_
                    ->Fail(ref, {.cause = scheduler::FailureCause::kCrash,
                                 .error = absl::UnavailableError("signal 6"),
                                 .stats = ""})
                    .ok());
    return ref;
  }
  int CrashesOf(const AttemptRef& ref) {
    return store_->GetAnyTenant(ref.job_id)->failures.crashes;
  }

  kino::testing::TempDir folder_;
  scheduler::SimulatedDisk disk_;
  scheduler::FakeClock clock_;
  scheduler::SeededRandom random_{7};
  std::unique_ptr<scheduler::JobStore> store_;
  Executor io_{"io", 1};
  scheduler::WorkerRegistry registry_{scheduler::LeaseOptions(), clock_};
  Peers peers_;
  Commands commands_{peers_, registry_};
  absl::Mutex mutex_;
  std::vector<absl::AnyInvocable<void()>> posted_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(DevicesTest, CrashesAreTakenBackOnceTheStoreCanWrite) {
  const auto devices = Make();
  std::vector<AttemptRef> crashed;
  for (int i = 0; i < 3; ++i) {
    crashed.push_back(Crash());
    if (i == 2) disk_.PlanFault({.calls = {DiskCall::kWrite}, .error = ENOSPC, .is_lasting = true});
    devices->OnCrash("gpu", crashed.back());
  }
  RunPosted();
  for (const AttemptRef& ref : crashed) EXPECT_EQ(CrashesOf(ref), 1);
  disk_.Heal();
  devices->Tick();
  clock_.Advance(absl::Seconds(1));
  devices->Tick();
  // The store answers in turn: what comes after has been done after.
  const AttemptRef last = Crash();
  for (const AttemptRef& ref : crashed) EXPECT_EQ(CrashesOf(ref), 0);
  EXPECT_EQ(CrashesOf(last), 1);
}

TEST_F(DevicesTest, WhichAreOutOutlivesTheObject) {
  auto devices = Make();
  for (const char* name : {"cuda:0", "cuda:1"}) {
    for (int i = 0; i < 3; ++i) devices->OnCrash(name, Crash());
  }
  devices.reset();
  io_.Stop();
  registry_.SetOut("cuda:0", false);
  registry_.SetOut("cuda:1", false);
  scheduler::WorkerHello hello{.name = std::string("w"), .process_id = 1};
  hello.device = std::string("cuda:1");
  ASSERT_TRUE(registry_.Hello(hello).ok());
  EXPECT_TRUE(registry_.Reserve("w").has_value());
  devices = Make();
  EXPECT_FALSE(registry_.Reserve("w").has_value());
  EXPECT_TRUE(registry_.Snapshot()[0].is_out);
}

}  // namespace
}  // namespace kino::frontend
