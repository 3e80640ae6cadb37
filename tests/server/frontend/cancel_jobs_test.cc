// Cancelling many jobs while others change them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "scheduler/store/sqlite/open.h"
#include "server/frontend/rpc/jobs.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

constexpr char kTenant[] = "t";

class CancelJobsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    files_ = *FileStore::Open(folder_.path());
    auto store = scheduler::OpenSqliteJobStore(
        {.path = folder_.path() + "/kino.db", .vfs = disk_.Vfs()}, {}, clock_, random_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    budget_ = std::make_unique<DiskBudget>(*store_, *files_, config_.limits);
    link_ = std::make_unique<WorkerLink>(WorkerLinkOptions{}, WorkerLinkParts{.store = *store_,
                                                                              .files = *files_,
                                                                              .budget = *budget_,
                                                                              .history = history_,
                                                                              .hub = hub_,
                                                                              .metrics = metrics_,
                                                                              .clock = clock_,
                                                                              .io = media_,
                                                                              .judge = {}});
    queue_ = std::make_unique<QueueView>(
        QueueSources{.store = *store_, .clock = clock_, .workers = {}}, hub_);
    context_ = std::make_unique<Context>(Context{.config = config_,
                                                 .store = *store_,
                                                 .files = *files_,
                                                 .budget = *budget_,
                                                 .hub = hub_,
                                                 .queue = *queue_,
                                                 .link = *link_,
                                                 .profiles = profiles_,
                                                 .metrics = metrics_,
                                                 .catalog = catalog_,
                                                 .admission = *admission_,
                                                 .clock = clock_,
                                                 .random = random_,
                                                 .probe = {},
                                                 .rpc = rpc_,
                                                 .slow = slow_,
                                                 .watch = watch_,
                                                 .media = media_,
                                                 .streams = places_,
                                                 .uploads = places_,
                                                 .commands = places_,
                                                 .idle_uploads = idle_uploads_});
  }
  void TearDown() override {
    slow_.Stop();
    link_.reset();
    queue_.reset();
    store_.reset();
  }

  std::string Submit() {
    scheduler::NewJob job;
    job.tenant = kTenant;
    job.model = "m";
    job.request = "request";
    job.request_fingerprint = "fingerprint";
    job.server_version = "0";
    const auto submitted = store_->Submit(std::move(job));
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    return submitted.ok() ? submitted->job.id : "";
  }

  const kino::testing::TempDir folder_;
  scheduler::SimulatedDisk disk_;
  scheduler::FakeClock clock_;
  scheduler::SeededRandom random_{1};
  const config::Config config_;
  scheduler::RunHistory history_;
  WatchHub hub_;
  Metrics metrics_;
  const std::unique_ptr<Admission> admission_ =
      *Admission::Make(config_.auth, config_.limits, clock_);
  const Catalog catalog_{config_.models};
  Profiles profiles_{ProfilesOptions(), [](auto...) {}};
  IdleUploads idle_uploads_{clock_, absl::Seconds(60)};
  Places places_{1, 1};
  Executor rpc_{"rpc", 1};
  Executor slow_{"slow", 1};
  Executor watch_{"watch", 1};
  Executor media_{"media", 1};
  std::unique_ptr<FileStore> files_;
  std::unique_ptr<scheduler::JobStore> store_;
  std::unique_ptr<DiskBudget> budget_;
  std::unique_ptr<WorkerLink> link_;
  std::unique_ptr<QueueView> queue_;
  std::unique_ptr<Context> context_;
};

TEST_F(CancelJobsTest, JobThatIsDeletedMeanwhileIsNoError) {
  const std::string kept = Submit();
  ASSERT_TRUE(store_->Get(kTenant, kept).ok());  // a connection for readers is open
  const std::string deleted = Submit();
  const std::string last = Submit();
  v1::CancelJobsRequest request;
  request.set_model("m");
  absl::StatusOr<v1::CancelJobsResponse> response;
  absl::Notification done;
  // The list is read in a snapshot, which is held here with all three in it.
  disk_.Hold(scheduler::DiskCall::kRead, "kino.db", "slow");
  slow_.Post([&] {
    CancelJobs(
        *context_, kTenant, request, [] { return false; },
        [&](auto answer) {
          response = std::move(answer);
          done.Notify();
        });
  });
  ASSERT_TRUE(disk_.WaitUntilHeld());
  EXPECT_TRUE(store_->Cancel(kTenant, deleted).ok());
  EXPECT_TRUE(store_->Delete(kTenant, deleted).ok());
  disk_.Release();
  done.WaitForNotification();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->count(), 2);
  EXPECT_THAT(response->ids(), ::testing::ElementsAre(last, kept));
  for (const std::string& id : {kept, last})
    EXPECT_EQ(store_->Get(kTenant, id)->state, scheduler::JobState::kCancelled);
}

}  // namespace
}  // namespace kino::frontend
