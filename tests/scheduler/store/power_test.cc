// Power cuts at every moment, and every call to the disk failing once. The same scenarios are run
// with syncs left out, to prove that they would see it.
#include <algorithm>
#include <filesystem>

#include "absl/synchronization/notification.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/scheduler/store/acked_work.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

class PowerTest : public testing::Test {
 protected:
  PowerTest() : blank_(blank_folder_.File("jobs.db")) {
    FakeClock clock;
    SeededRandom random(1);
    absl::Notification checked;
    StoreOptions options;
    options.checked = [&](const absl::Status&) { checked.Notify(); };
    const auto store = OpenSqliteJobStore({.path = blank_}, options, clock, random);
    EXPECT_TRUE(store.ok()) << store.status();
    if (store.ok()) checked.WaitForNotification();
  }

  struct Trial {
    int64_t cut = 0;  // after so many changes
    Survival survival = Survival::kNothing;
    size_t request_bytes = 100;
    int64_t first_omitted = 0, last_omitted = -1;
    std::string omitted_end{};
    bool is_new_file = false;  // the power is cut while the file is made, too
    // Erasing empties the log, which syncs what a commit before may have left out.
    bool erases = true;
  };
  struct Outcome {
    bool is_cut = false;
    int lost = 0;  // acknowledgements, and 1 where the file is damaged or cannot be opened
    std::string what{};
    int64_t changes = 0, changes_of_opening = 0;
    std::vector<int64_t> syncs{};  // the changes until each
  };

  Outcome Try(const Trial& trial) {
    ScratchFolder folder;
    SimulatedDisk disk;
    FakeClock clock;
    SeededRandom random(static_cast<uint64_t>(trial.cut) + 1);
    AckedWork work;
    const std::string path = folder.File("jobs.db");
    const auto open = [&] {
      return OpenSqliteJobStore({.path = path, .vfs = disk.Vfs(), .files = &disk}, {}, clock,
                                random);
    };
    if (!trial.is_new_file) std::filesystem::copy_file(blank_, path);
    disk.TrackPower(folder.File("").substr(0, folder.File("").size() - 1));
    disk.OmitSyncs(trial.first_omitted, trial.last_omitted, trial.omitted_end);
    disk.CutPowerAfter(trial.cut);
    Outcome outcome;
    {
      auto store = open();
      outcome.changes_of_opening = disk.changes();
      if (store.ok()) work.Do(**store, clock, trial.request_bytes, trial.erases);
      outcome.is_cut = disk.is_cut();
      outcome.changes = disk.changes();
      outcome.syncs = disk.syncs();
      // What is not cut before it is closed is cut then.
      disk.CutPowerAfter(0);
    }
    disk.Restore(trial.survival, random);
    auto store = open();
    if (!store.ok()) {
      outcome.lost = 1;
      outcome.what = store.status().ToString();
      return outcome;
    }
    outcome.lost = work.CountLost(**store);
    if (!(*store)->Submit(MakeJob()).ok()) ++outcome.lost;
    store->reset();
    outcome.what = FindDamage(path);
    if (outcome.what != "ok") ++outcome.lost;
    return outcome;
  }

  ScratchFolder blank_folder_;
  const std::string blank_;
};

TEST_F(PowerTest, NothingAcknowledgedIsLostWheneverThePowerIsCut) {
  for (const Survival survival : {Survival::kNothing, Survival::kSome}) {
    int64_t cut = 0;
    for (bool is_cut = true; is_cut && !HasFailure(); ++cut) {
      const Outcome outcome = Try({.cut = cut, .survival = survival});
      EXPECT_EQ(outcome.lost, 0) << "cut after " << cut << " changes: " << outcome.what;
      is_cut = outcome.is_cut;
    }
    EXPECT_GT(cut, 50);
  }
}

TEST_F(PowerTest, AFileIsMadeWholeOrMadeAnewWheneverThePowerIsCut) {
  const int64_t changes = Try({.cut = INT64_MAX / 2, .is_new_file = true}).changes_of_opening;
  ASSERT_GT(changes, 10);
  for (const Survival survival : {Survival::kNothing, Survival::kSome}) {
    for (int64_t cut = 0; cut <= changes && !HasFailure(); ++cut) {
      const Outcome outcome = Try({.cut = cut, .survival = survival, .is_new_file = true});
      EXPECT_EQ(outcome.lost, 0) << "cut after " << cut << " changes: " << outcome.what;
    }
  }
}

TEST_F(PowerTest, NothingAcknowledgedIsLostInOrAfterACheckpoint) {
  const Trial whole{.cut = INT64_MAX / 2, .request_bytes = 2'000'000};
  const int64_t changes = Try(whole).changes;
  ASSERT_GT(changes, 5000);
  // The last calls of a checkpoint are its syncs: they are few, and so steps are uneven.
  SeededRandom random(3);
  for (int i = 0; i < 24 && !HasFailure(); ++i) {
    Trial trial = whole;
    trial.cut = static_cast<int64_t>(random.Next() % static_cast<uint64_t>(changes));
    trial.survival = i % 2 == 0 ? Survival::kNothing : Survival::kSome;
    const Outcome outcome = Try(trial);
    EXPECT_EQ(outcome.lost, 0) << "cut after " << trial.cut << " changes: " << outcome.what;
  }
}

// As with synchronous=OFF or NORMAL: the log is not synced when an operation is committed.
TEST_F(PowerTest, ALogThatIsNotSyncedIsSeen) {
  const Outcome outcome = Try(
      {.cut = INT64_MAX / 2, .last_omitted = INT64_MAX, .omitted_end = "-wal", .erases = false});
  EXPECT_GE(outcome.lost, 4) << "all jobs that were neither deleted nor purged, and the asset";
}

TEST_F(PowerTest, EverySyncOfACommitThatIsLeftOutIsSeen) {
  const Outcome whole = Try({.cut = INT64_MAX / 2, .erases = false});
  EXPECT_EQ(whole.lost, 0) << whole.what;
  // The loss shows between the sync and the next one that makes up for it, or for as long as none
  // does.
  std::vector<int64_t> unseen;
  for (size_t i = 0; i < whole.syncs.size(); ++i) {
    std::vector<int64_t> cuts;
    const int64_t end = i + 1 < whole.syncs.size() ? whole.syncs[i + 1] : whole.changes + 1;
    for (int64_t cut = whole.syncs[i]; cut < end; ++cut) cuts.push_back(cut);
    cuts.push_back(whole.changes);
    const auto sync = static_cast<int64_t>(i) + 1;
    const bool is_seen = std::any_of(cuts.begin(), cuts.end(), [&](int64_t cut) {
      return Try({.cut = cut, .first_omitted = sync, .last_omitted = sync, .erases = false}).lost >
             0;
    });
    if (!is_seen) unseen.push_back(sync);
  }
  // The folder's, whose names were durable already, and that of the log's head, which the first
  // commit's covers.
  EXPECT_EQ(unseen, (std::vector<int64_t>{1, 2})) << "of " << whole.syncs.size();
  EXPECT_GE(whole.syncs.size(), 18u);
}

TEST_F(PowerTest, ACheckpointThatIsNotSyncedIsSeen) {
  const Trial whole{.cut = INT64_MAX / 2,
                    .request_bytes = 2'000'000,
                    .last_omitted = INT64_MAX,
                    .omitted_end = "jobs.db"};
  EXPECT_GT(Try(whole).lost, 0);
}

// --- Every call fails once. ---

struct EveryCall {
  std::set<DiskCall> calls;
  int error;
};

class EveryCallTest : public testing::TestWithParam<EveryCall> {};
INSTANTIATE_TEST_SUITE_P(
    All, EveryCallTest,
    testing::Values(EveryCall{{DiskCall::kRead}, EIO}, EveryCall{{DiskCall::kOpen}, EMFILE},
                    EveryCall{{DiskCall::kMap}, ENOMEM}, EveryCall{{DiskCall::kUnlink}, EIO},
                    EveryCall{{DiskCall::kWrite, DiskCall::kTruncate}, ENOSPC},
                    EveryCall{{DiskCall::kSync, DiskCall::kSyncFolder}, EIO}),
    [](const auto& tested) { return DiskCallName(*tested.param.calls.begin()); });

TEST_P(EveryCallTest, FailsOnceAndNothingAcknowledgedIsLost) {
  // First while the store is opened and works, then while it is closed.
  int struck = 0;
  for (const bool is_closing : {false, true}) {
    bool has_struck = true;
    for (int count = 0; has_struck && !HasFailure(); ++count) {
      SCOPED_TRACE(testing::Message() << "the call behind " << count << ", closing " << is_closing);
      ScratchFolder folder;
      SimulatedDisk disk;
      FakeClock clock;
      SeededRandom random(5);
      AckedWork work;
      const std::string path = folder.File("jobs.db");
      const auto open = [&] {
        return OpenSqliteJobStore({.path = path, .vfs = disk.Vfs(), .files = &disk}, {}, clock,
                                  random);
      };
      const DiskFault fault{.calls = GetParam().calls,
                            .count = count,
                            .error = GetParam().error,
                            .bytes_written = 100};
      if (!is_closing) disk.PlanFault(fault);
      auto store = open();
      if (store.ok()) {
        const int refused = work.Do(**store, clock, 100);
        // The one call takes along the operation that it is made for, and those that build on it.
        EXPECT_LE(refused, disk.faults_struck() > 0 ? 4 : 0);
        disk.Heal();
        EXPECT_EQ(work.CountLost(**store), 0);
        if (is_closing) disk.PlanFault(fault);
        store->reset();
      }
      has_struck = disk.faults_struck() > 0;
      struck += disk.faults_struck();
      disk.Heal();
      store = open();
      ASSERT_TRUE(store.ok()) << store.status();
      EXPECT_EQ(work.CountLost(**store), 0);
      EXPECT_TRUE((*store)->Submit(MakeJob()).ok());
      store->reset();
      EXPECT_EQ(FindDamage(path), "ok");
    }
  }
  EXPECT_GT(struck, 0) << "the fault never struck";
}

}  // namespace
}  // namespace kino::scheduler
