// Disk faults at every write of a scenario: no acknowledged operation is lost, the others are
// refused by a status that says why, and the store works again once the disk does.
#include <map>

#include "tests/scheduler/store/fault_vfs.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

struct FaultCase {
  Fault fault;
  bool is_lasting;
};

class FaultTest : public testing::TestWithParam<FaultCase> {
 protected:
  ~FaultTest() override { HealFaults(); }

  absl::StatusOr<std::unique_ptr<JobStore>> Open(const ScratchFolder& folder) {
    return OpenSqliteJobStore({.path = folder.File("jobs.db"), .vfs = FaultVfs()}, {}, clock_,
                              random_);
  }

  void ExpectFaultStatus(const absl::Status& status) {
    if (GetParam().fault == Fault::kDiskFull) {
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      EXPECT_EQ(ReasonOf(status), kReasonDiskFull);
    } else {
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      EXPECT_EQ(ReasonOf(status), kReasonStoreUnavailable);
    }
  }

  // Some of everything; `acked` gets the state each job was acknowledged in.
  void RunScenario(JobStore& store, size_t request_bytes, std::map<std::string, JobState>& acked) {
    const auto note = [&](const absl::StatusOr<Job>& job) {
      if (job.ok()) {
        acked[job->id] = job->state;
      } else {
        ExpectFaultStatus(job.status());
      }
    };
    std::string last;
    for (int i = 0; i < 3; ++i) {
      NewJob job = MakeJob();
      job.labels = {{"n", std::to_string(i)}};
      job.request.assign(request_bytes, 'x');
      const auto submitted = store.Submit(job);
      if (submitted.ok()) last = submitted->job.id;
      note(submitted.ok() ? absl::StatusOr<Job>(submitted->job) : submitted.status());
    }
    for (const bool commits : {true, false}) {
      const auto claim = ClaimNext(store, kWorker);
      if (!claim.ok()) {
        ExpectFaultStatus(claim.status());
        continue;
      }
      if (!claim->has_value()) continue;
      const AttemptRef ref = (*claim)->ref;
      acked[ref.job_id] = JobState::kRunning;
      note(commits ? store.Commit(ref, MakeArtifact("a"), "stats")
                   : store.Fail(ref, {.cause = FailureCause::kClient,
                                      .error = absl::InvalidArgumentError("x")}));
    }
    if (!last.empty()) note(store.Cancel("default", last));
  }

  void ExpectAcked(JobStore& store, const std::map<std::string, JobState>& acked) {
    for (const auto& [id, state] : acked) {
      const auto job = store.GetAnyTenant(id);
      ASSERT_TRUE(job.ok()) << job.status();
      EXPECT_EQ(JobStateName(job->state), JobStateName(state));
      const auto events = store.ReadEvents(id, 0, 100);
      ASSERT_TRUE(events.ok()) << events.status();
      EXPECT_EQ(static_cast<int64_t>(events->size()), job->state_number);
      EXPECT_EQ(events->back().state, state);
    }
    int64_t rows = 0;
    const auto load = store.Load();
    ASSERT_TRUE(load.ok()) << load.status();
    for (const auto& [state, count] : load->jobs) rows += count;
    EXPECT_EQ(rows, static_cast<int64_t>(acked.size())) << "a refused submission left a row";
  }

  // False once the fault no longer struck within the scenario.
  bool Run(int count, size_t request_bytes) {
    SCOPED_TRACE(testing::Message() << "fault after " << count << " operations");
    ScratchFolder folder;
    auto store = Open(folder);
    EXPECT_TRUE(store.ok()) << store.status();
    if (!store.ok()) return false;
    std::map<std::string, JobState> acked;
    PlanFault({.fault = GetParam().fault, .count = count, .is_lasting = GetParam().is_lasting});
    RunScenario(**store, request_bytes, acked);
    const bool has_struck = FaultsStruck() > 0;
    ExpectAcked(**store, acked);
    HealFaults();
    const auto after = (*store)->Submit(MakeJob());
    EXPECT_TRUE(after.ok()) << after.status();
    if (after.ok()) acked[after->job.id] = JobState::kQueued;
    ExpectAcked(**store, acked);
    store->reset();
    store = Open(folder);
    EXPECT_TRUE(store.ok()) << store.status();
    if (store.ok()) ExpectAcked(**store, acked);
    return has_struck;
  }

  FakeClock clock_;
  SeededRandom random_{9};
};

INSTANTIATE_TEST_SUITE_P(
    All, FaultTest,
    testing::Values(FaultCase{Fault::kDiskFull, false}, FaultCase{Fault::kDiskFull, true},
                    FaultCase{Fault::kWriteError, false}, FaultCase{Fault::kWriteError, true},
                    FaultCase{Fault::kSyncError, false}, FaultCase{Fault::kSyncError, true}),
    [](const auto& tested) {
      return std::string(FaultName(tested.param.fault)) +
             (tested.param.is_lasting ? "Lasting" : "Once");
    });

TEST_P(FaultTest, NoAckIsLostWhicheverWriteFails) {
  int count = 0;
  while (Run(count, 100) && !HasFailure()) ++count;
  EXPECT_GT(count, 4) << "the fault never struck";
}

// Requests large enough that the log is written back into the file (checkpoint) within the
// scenario.
TEST_P(FaultTest, NoAckIsLostWhenACheckpointFails) {
  const int step = GetParam().fault == Fault::kSyncError ? 1 : 631;
  int count = 0;
  while (Run(count, 3'000'000) && !HasFailure()) count += step;
  EXPECT_GT(count, 4 * step) << "the fault never struck";
}

TEST_P(FaultTest, OpeningOnABadDiskIsRefusedAndLeavesNothingBroken) {
  for (int count = 0; !HasFailure(); ++count) {
    SCOPED_TRACE(count);
    ScratchFolder folder;
    PlanFault({.fault = GetParam().fault, .count = count, .is_lasting = GetParam().is_lasting});
    auto store = Open(folder);
    const bool has_struck = FaultsStruck() > 0;
    if (!store.ok()) ExpectFaultStatus(store.status());
    HealFaults();
    if (store.ok()) store->reset();
    store = Open(folder);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_TRUE((*store)->Submit(MakeJob()).ok());
    if (!has_struck) return;
  }
}

}  // namespace
}  // namespace kino::scheduler
