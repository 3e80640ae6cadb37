// What is special to the SQLite store: its file.
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/schema.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

class SqliteFileTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<JobStore>> Open() {
    return OpenSqliteJobStore({.path = path_}, {}, clock_, random_);
  }
  std::unique_ptr<Connection> Raw() {
    auto db = Connection::Open(path_, SQLITE_OPEN_READWRITE, "");
    EXPECT_TRUE(db.ok()) << db.status();
    return *std::move(db);
  }
  // Makes the file as a Kino of that schema version did, with what `sql` puts in.
  void MakeOlder(int version, const char* sql) {
    auto db = Connection::Open(path_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "");
    ASSERT_TRUE(db.ok()) << db.status();
    absl::Status status = MigrateSchemaTo(**db, version);
    ASSERT_TRUE(status.ok()) << status;
    status = (*db)->Execute(sql);
    ASSERT_TRUE(status.ok()) << status;
  }

  ScratchFolder folder_;
  const std::string path_ = folder_.File("jobs.db");
  FakeClock clock_;
  SeededRandom random_{1};
};

TEST_F(SqliteFileTest, SecondOpeningIsRefusedAndNamesTheHolder) {
  auto first = Open();
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  EXPECT_EQ(ReasonOf(second.status()), kReasonStoreLocked);
  EXPECT_THAT(std::string(second.status().message()),
              testing::HasSubstr("process " + std::to_string(getpid())));
  first->reset();
  EXPECT_TRUE(Open().ok());
}

TEST_F(SqliteFileTest, NewerSchemaIsRefused) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Raw()->Execute("PRAGMA user_version = 999").ok());
  const auto store = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(store.status())) << store.status();
  EXPECT_EQ(ReasonOf(store.status()), kReasonStoreTooNew);
  EXPECT_THAT(std::string(store.status().message()), testing::HasSubstr("999"));
}

TEST_F(SqliteFileTest, InterruptedMigrationLeavesTheOldSchema) {
  // Version 1's tables cannot be made where one of them is there already.
  std::ofstream(path_).close();
  ASSERT_TRUE(Raw()->Execute("CREATE TABLE job_assets (x)").ok());
  EXPECT_FALSE(Open().ok());
  auto db = Raw();
  auto tables = db->PrepareOnce("SELECT count(*) FROM sqlite_schema WHERE type = 'table'");
  ASSERT_TRUE(*tables->Step());
  EXPECT_EQ(tables->Int(0), 1);
}

// A file as an older Kino left it: two jobs of one tenant and one of another, labels, a queue.
class OlderFileTest : public SqliteFileTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(All, OlderFileTest, testing::Range(1, SchemaVersion()));

TEST_P(OlderFileTest, IsTakenOverWhole) {
  MakeOlder(GetParam(), R"sql(
INSERT INTO jobs(seq, id, tenant, model, priority, fingerprint, server_version, create_us, state,
    state_number, attempt, token, cancel_requested, end_us, crashes, out_of_memory, interruptions,
    error_code, error_message, artifact_file, artifact_purged, stats) VALUES
  (1, 'old', 'a', 'ltx', 2, x'', '', 5, 3, 3, 1, '', 0, 7, 0, 0, 0, 0, '', 'old.mp4', 0, x''),
  (2, 'first', 'a', 'ltx', 2, x'', '', 5, 1, 1, 0, '', 0, NULL, 0, 0, 0, 0, '', NULL, 0, x''),
  (3, 'second', 'b', 'ltx', 2, x'', '', 5, 1, 1, 0, '', 0, NULL, 0, 0, 0, 0, '', NULL, 0, x'');
INSERT INTO requests VALUES (1, x'41'), (2, x'42'), (3, x'43');
INSERT INTO labels(job, key, value) VALUES (1, 'k', 'v'), (2, 'k', 'v'), (3, 'k', 'v');
)sql");
  if (GetParam() >= 3) {
    // From then on a label knows its job's tenant.
    ASSERT_TRUE(Raw()->Execute("UPDATE labels SET tenant = iif(job = 3, 'b', 'a')").ok());
  }
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto ids = [&](const JobFilter& filter) {
    std::vector<std::string> found;
    const auto page = (*store)->List(filter, 10, "");
    EXPECT_TRUE(page.ok()) << page.status();
    if (!page.ok()) return found;
    for (const Job& job : page->jobs) found.push_back(job.id + job.request);
    return found;
  };
  EXPECT_THAT(ids({}), testing::ElementsAre("secondC", "firstB", "oldA"));
  EXPECT_THAT(ids({.tenant = "a", .labels = {{"k", "v"}}}), testing::ElementsAre("firstB", "oldA"));
  EXPECT_THAT(ids({.tenant = "b", .labels = {{"k", "v"}}}), testing::ElementsAre("secondC"));
  const auto queue = [&] {
    std::vector<std::string> found;
    const auto jobs = (*store)->Queue();
    EXPECT_TRUE(jobs.ok()) << jobs.status();
    if (!jobs.ok()) return found;
    for (const QueuedJob& job : *jobs) found.push_back(job.id);
    return found;
  };
  EXPECT_THAT(queue(), testing::ElementsAre("first", "second"));
  EXPECT_THAT(*(*store)->FindLeftOverFiles({"x.mp4", "old.mp4"}), testing::ElementsAre("x.mp4"));
  ASSERT_TRUE(
      (*store)
          ->FailQueued("first", WithReason(absl::FailedPreconditionError("x"), kReasonDoesNotFit))
          .ok());
  EXPECT_EQ(ReasonOf((*store)->GetAnyTenant("first")->error), kReasonDoesNotFit);
  EXPECT_THAT(queue(), testing::ElementsAre("second"));
}

TEST_F(SqliteFileTest, StoreOfTheSecondVersionKeepsItsJobsAndTheirCounts) {
  // One that crashed once and waits, one that runs, one that has ended.
  MakeOlder(2, R"sql(
INSERT INTO jobs(seq, id, tenant, model, priority, fingerprint, server_version, create_us, state,
    state_number, attempt, token, cancel_requested, start_us, end_us, crashes, out_of_memory,
    interruptions, error_code, error_message, error_reason, artifact_file, artifact_purged, stats)
  VALUES
  (1, 'crashed', 'a', 'ltx', 2, x'', '', 5, 1, 3, 1, '', 0, 6, NULL, 1, 0, 0, 0, '', '', NULL, 0,
   x''),
  (2, 'running', 'a', 'ltx', 2, x'', '', 5, 2, 2, 1, 't2', 0, 6, NULL, 0, 0, 0, 0, '', '', NULL, 0,
   x''),
  (3, 'ended', 'a', 'ltx', 2, x'', '', 5, 3, 3, 1, '', 0, 6, 7, 0, 0, 0, 0, '', '', 'a.mp4', 0,
   x'');
INSERT INTO requests VALUES (1, x'41'), (2, x'42'), (3, x'43');
INSERT INTO attempts(job, number, token, worker, start_us, end_us, cause, error_code, error_message)
  VALUES (1, 1, 't1', 'w', 6, 7, 6, 13, 'it broke'), (2, 1, 't2', 'w', 6, NULL, 0, 0, ''),
         (3, 1, 't3', 'w', 6, 7, 0, 0, '');
INSERT INTO events(job, number, state, attempt, time_us, reason) VALUES
  (1, 1, 1, 0, 5, ''), (2, 1, 1, 0, 5, ''), (3, 1, 1, 0, 5, ''), (1, 2, 2, 1, 6, ''),
  (2, 2, 2, 1, 6, ''), (3, 2, 2, 1, 6, ''), (1, 3, 1, 1, 7, 'it broke'), (3, 3, 3, 1, 7, '');
)sql");
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto job = (*store)->GetAnyTenant("crashed");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state, JobState::kQueued);
  EXPECT_EQ(job->failures.crashes, 1);
  EXPECT_EQ(job->failures.unclean_stops, 0);
  ASSERT_EQ(job->attempts.size(), 1u);
  EXPECT_EQ(job->attempts[0].cause, FailureCause::kCrash);
  EXPECT_EQ(job->attempts[0].evidence, "");
  const auto attempts = (*store)->RunningAttempts();
  ASSERT_TRUE(attempts.ok()) << attempts.status();
  ASSERT_EQ(attempts->size(), 1u);
  EXPECT_EQ(attempts->front().ref.job_id, "running");
  EXPECT_EQ(attempts->front().process_id, 0) << "not known";
  EXPECT_EQ((*store)->GetAnyTenant("ended")->artifact->file_name, "a.mp4");
  // The attempt from before counts on.
  const AttemptRef second = (*(*store)->Claim("crashed", "w", 7))->ref;
  EXPECT_EQ(second.attempt, 2);
  EXPECT_EQ(
      (*store)
          ->Fail(second, {.cause = FailureCause::kCrash, .error = absl::InternalError("it broke")})
          ->state,
      JobState::kQuarantined);
}

TEST_F(SqliteFileTest, FilesOfAnOlderStoreCountToTheirTenants) {
  MakeOlder(3, R"sql(
INSERT INTO jobs(seq, id, tenant, model, priority, fingerprint, server_version, create_us, state,
    state_number, attempt, token, cancel_requested, end_us, crashes, out_of_memory, interruptions,
    error_code, error_message, artifact_file, artifact_bytes, artifact_purged, stats) VALUES
  (1, 'there', 'a', 'ltx', 2, x'', '', 5, 3, 3, 1, '', 0, 7, 0, 0, 0, 0, '', 'a.mp4', 100, 0, x''),
  (2, 'purged', 'a', 'ltx', 2, x'', '', 5, 3, 3, 1, '', 0, 7, 0, 0, 0, 0, '', NULL, NULL, 1, x'');
INSERT INTO assets(id, tenant, bytes, sha256, content_type, width, height, frames, create_us, file)
  VALUES ('x', 'a', 5, '', '', 1, 1, 1, 5, 'x'), ('y', 'b', 3, '', '', 1, 1, 1, 5, 'y');
INSERT INTO requests VALUES (1, x'41'), (2, x'42');
)sql");
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(*(*store)->DiskUse(), (std::map<std::string, int64_t>{{"a", 105}, {"b", 3}}));
  ASSERT_TRUE((*store)->Delete("a", "there").ok());
  EXPECT_EQ(*(*store)->DiskUse(), (std::map<std::string, int64_t>{{"a", 5}, {"b", 3}}));
  EXPECT_THAT(*(*store)->PurgeResults(absl::InfiniteFuture(), 10), testing::IsEmpty());
}

TEST_F(SqliteFileTest, FileThatIsNoDatabaseIsRefused) {
  std::ofstream(path_) << std::string(100'000, 'x');
  const auto store = Open();
  EXPECT_TRUE(absl::IsDataLoss(store.status())) << store.status();
  EXPECT_EQ(ReasonOf(store.status()), kReasonStoreDamaged);
}

// What a look through the file tells, and when.
class FileCheckTest : public SqliteFileTest {
 protected:
  // Opens the store, waits for its look through the file where there is one, and gives what it
  // told; nothing where the file needs none.
  std::optional<absl::Status> Look(const std::function<void(JobStore&)>& use = nullptr) {
    std::optional<absl::Status> found;
    absl::Notification told;
    std::vector<std::string> log;
    absl::Mutex mutex;
    StoreOptions options;
    options.log = [&](const std::string& line) {
      absl::MutexLock lock(&mutex);
      log.push_back(line);
    };
    options.checked = [&](const absl::Status& status) {
      found = status;
      told.Notify();
    };
    const bool is_due = NeedsLook();
    auto store = OpenSqliteJobStore({.path = path_}, options, clock_, random_);
    EXPECT_TRUE(store.ok()) << store.status();
    if (!store.ok()) return store.status();
    if (is_due) told.WaitForNotification();
    if (use != nullptr) use(**store);
    store->reset();
    if (found && !found->ok()) {
      EXPECT_THAT(log, testing::Contains(testing::HasSubstr("damaged")));
    }
    return found;
  }
  bool NeedsLook() {
    if (!std::filesystem::exists(path_)) return true;
    auto db = Raw();
    auto mark = db->PrepareOnce("SELECT 1 FROM marks WHERE name = 'closed'");
    return !mark.ok() || !*mark->Step();
  }
  // As if the last store had not been closed: a copy of the files is taken while it is open.
  void LeaveUnclosed(const std::function<void(JobStore&)>& use) {
    const std::string copy = folder_.File("copy");
    std::filesystem::create_directory(copy);
    {
      auto store = Open();
      ASSERT_TRUE(store.ok()) << store.status();
      use(**store);
      for (const char* name : {"jobs.db", "jobs.db-wal"}) {
        std::filesystem::copy_file(folder_.File(name), copy + "/" + name);
      }
    }
    std::filesystem::remove(path_);
    for (const char* name : {"jobs.db", "jobs.db-wal"}) {
      std::filesystem::rename(copy + "/" + name, folder_.File(name));
    }
    std::filesystem::remove(copy);
  }
  // Spoils the tree that holds the requests, and no other.
  void Damage() {
    int64_t root = 0;
    {
      auto db = Raw();
      ASSERT_TRUE(db->Execute("PRAGMA wal_checkpoint(TRUNCATE)").ok());
      auto row = db->PrepareOnce("SELECT rootpage FROM sqlite_schema WHERE name = 'requests'");
      ASSERT_TRUE(row.ok() && *row->Step());
      root = row->Int64(0);
    }
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp((root - 1) * 4096);
    file << std::string(64, '\xff');
  }
};

TEST_F(FileCheckTest, OnlyAFileThatWasNotClosedIsLookedThrough) {
  EXPECT_EQ(Look(), absl::OkStatus()) << "a new one was never closed";
  EXPECT_EQ(Look(), std::nullopt);
  EXPECT_EQ(Look([](JobStore& store) { EXPECT_TRUE(store.Submit(MakeJob()).ok()); }), std::nullopt)
      << "nothing was written before";
  EXPECT_EQ(Look(), std::nullopt) << "closed in peace after a write";
  LeaveUnclosed([](JobStore& store) { EXPECT_TRUE(store.Submit(MakeJob()).ok()); });
  EXPECT_EQ(Look(), absl::OkStatus());
  EXPECT_EQ(Look(), std::nullopt);
}

TEST_F(FileCheckTest, TheFirstWriteTakesTheMarkAway) {
  EXPECT_EQ(Look(), absl::OkStatus());
  auto store = Open();
  EXPECT_FALSE(NeedsLook());
  ASSERT_TRUE((*store)->LatestCursor().ok());
  EXPECT_FALSE(NeedsLook()) << "reading changes nothing";
  ASSERT_TRUE((*store)->InsertAsset({.id = "a", .tenant = "t", .file_name = "f"}).ok());
  EXPECT_TRUE(NeedsLook());
  store->reset();
  EXPECT_FALSE(NeedsLook());
}

TEST_F(FileCheckTest, DamageIsToldWhileTheStoreServesAndAgainUntilItIsMended) {
  LeaveUnclosed([](JobStore& store) { EXPECT_TRUE(store.Submit(MakeJob()).ok()); });
  Damage();
  for (int i = 0; i < 2; ++i) {
    const std::optional<absl::Status> found = Look([&](JobStore& store) {
      EXPECT_EQ(store.Load()->jobs.at(JobState::kQueued), 1);
      const auto page = store.List({}, 10, "");
      EXPECT_TRUE(absl::IsDataLoss(page.status())) << page.status();
      EXPECT_EQ(ReasonOf(page.status()), kReasonStoreDamaged);
    });
    ASSERT_TRUE(found.has_value()) << "a damaged file must not be marked as closed in peace";
    EXPECT_TRUE(absl::IsDataLoss(*found)) << *found;
    EXPECT_EQ(ReasonOf(*found), kReasonStoreDamaged);
  }
}

TEST_F(FileCheckTest, EveryFailureOfTheLocksFileIsToldOrHarmless) {
  SimulatedDisk disk;
  const auto open = [&] {
    return OpenSqliteJobStore({.path = path_, .vfs = disk.Vfs(), .files = &disk}, {}, clock_,
                              random_);
  };
  for (const int error : {ENOSPC, EIO, EMFILE}) {
    for (const DiskCall call : {DiskCall::kOpen, DiskCall::kLock}) {
      disk.PlanFault({.calls = {call}, .path_part = ".lock", .error = error});
      const auto store = open();
      EXPECT_EQ(disk.faults_struck(), 1);
      EXPECT_EQ(store.status().code(), absl::ErrnoToStatusCode(error)) << store.status();
      EXPECT_NE(std::string(store.status().message()).find(".lock"), std::string::npos);
    }
    // Who holds it is for a message only.
    for (const DiskCall call : {DiskCall::kTruncate, DiskCall::kWrite}) {
      disk.PlanFault({.calls = {call}, .path_part = ".lock", .error = error});
      const auto store = open();
      EXPECT_EQ(disk.faults_struck(), 1);
      ASSERT_TRUE(store.ok()) << store.status();
      EXPECT_EQ(ReasonOf(open().status()), kReasonStoreLocked);
    }
    const auto holder = open();
    ASSERT_TRUE(holder.ok()) << holder.status();
    disk.PlanFault({.calls = {DiskCall::kRead}, .path_part = ".lock", .error = error});
    const auto second = open();
    EXPECT_EQ(ReasonOf(second.status()), kReasonStoreLocked);
    EXPECT_NE(std::string(second.status().message()).find("unknown"), std::string::npos);
    disk.Heal();
  }
}

TEST_F(FileCheckTest, AFirstWriteThatFailsLeavesTheMarkToTheNext) {
  EXPECT_EQ(Look(), absl::OkStatus());
  SimulatedDisk disk;
  auto store = OpenSqliteJobStore({.path = path_, .vfs = disk.Vfs()}, {}, clock_, random_);
  ASSERT_TRUE(store.ok()) << store.status();
  for (const DiskCall call : {DiskCall::kWrite, DiskCall::kSync}) {
    disk.PlanFault({.calls = {call}, .error = ENOSPC, .is_lasting = true});
    EXPECT_FALSE((*store)->Submit(MakeJob()).ok());
    disk.Heal();
    EXPECT_FALSE(NeedsLook()) << "nothing was written";
  }
  EXPECT_TRUE((*store)->Submit(MakeJob()).ok());
  EXPECT_TRUE(NeedsLook());
  store->reset();
}

TEST_F(FileCheckTest, AStoreClosedBeforeTheLookEndsIsLookedAtAgain) {
  // Large enough that the look takes longer than it takes to break it off.
  LeaveUnclosed([](JobStore& store) {
    NewJob job = MakeJob();
    job.request.assign(4'000'000, 'x');
    for (int i = 0; i < 15; ++i) EXPECT_TRUE(store.Submit(job).ok());
  });
  SimulatedDisk disk;
  std::optional<absl::Status> found;
  StoreOptions options;
  options.checked = [&](const absl::Status& status) { found = status; };
  disk.Hold(DiskCall::kMap, "jobs.db", "kino-check");
  auto store = OpenSqliteJobStore({.path = path_, .vfs = disk.Vfs()}, options, clock_, random_);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_TRUE(disk.WaitUntilHeld());
  absl::Notification closed;
  std::thread closer([&] {
    store->reset();
    closed.Notify();
  });
  // Closing has to wait for the look, which is held: this gives it the time to break the look off.
  EXPECT_FALSE(closed.WaitForNotificationWithTimeout(absl::Milliseconds(200)));
  disk.Release();
  closer.join();
  // Should closing have come even later, the look has told what it found.
  EXPECT_EQ(NeedsLook(), !found.has_value());
  EXPECT_TRUE(!found || found->ok()) << "broken off is no finding: " << *found;
}

TEST_F(SqliteFileTest, DamagedRootIsFoundAtStart) {
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    for (int i = 0; i < 200; ++i) ASSERT_TRUE((*store)->Submit(MakeJob()).ok());
  }
  const auto size = std::filesystem::file_size(path_);
  std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
  for (uint64_t page = 2; page < size / 4096; ++page) {
    file.seekp(static_cast<std::streamoff>(page * 4096));
    file << std::string(64, '\xff');
  }
  file.close();
  const auto store = Open();
  EXPECT_TRUE(absl::IsDataLoss(store.status())) << store.status();
}

TEST_F(SqliteFileTest, MissingFolderIsNotFound) {
  const auto store =
      OpenSqliteJobStore({.path = folder_.File("nowhere/jobs.db")}, {}, clock_, random_);
  EXPECT_TRUE(absl::IsNotFound(store.status())) << store.status();
}

TEST_F(SqliteFileTest, UnwritableFolderIsRefused) {
  const std::string closed = folder_.File("closed");
  ASSERT_EQ(mkdir(closed.c_str(), 0500), 0);
  // Root may write everywhere: it opens the store as another user, whom the folder lets in.
  const bool root = geteuid() == 0;
  constexpr uid_t kNobody = 65534;
  if (root) {
    ASSERT_EQ(chmod(folder_.File("").c_str(), 0711), 0);
    ASSERT_EQ(chown(closed.c_str(), kNobody, static_cast<gid_t>(-1)), 0);
    ASSERT_EQ(seteuid(kNobody), 0);
  }
  const auto store = OpenSqliteJobStore({.path = closed + "/jobs.db"}, {}, clock_, random_);
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
  EXPECT_TRUE(absl::IsPermissionDenied(store.status())) << store.status();
}

TEST_F(SqliteFileTest, OnlyTheOwnerMayReadTheFiles) {
  auto store = Open();
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE((*store)->Submit(MakeJob()).ok());
  for (const char* name : {"jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db.lock"}) {
    struct stat found;
    const int error = stat(folder_.File(name).c_str(), &found);
    EXPECT_EQ(error, 0) << name;
    if (error != 0) continue;
    EXPECT_EQ(found.st_mode & 0777, 0600u) << name;
  }
}

class ErasedTest : public SqliteFileTest {
 protected:
  // Whether a file of the store holds the text.
  bool IsOnDisk(const std::string& text) const {
    for (const char* suffix : {"", "-wal"}) {
      std::ifstream file(path_ + suffix, std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(file)), {});
      if (bytes.find(text) != std::string::npos) return true;
    }
    return false;
  }
  // The writer does it behind the delete's answer, with no event to wait for.
  bool GoesFromDisk(const std::string& text) const {
    const absl::Time end = absl::Now() + absl::Seconds(60);  // only ever reached by a failure
    while (IsOnDisk(text)) {
      if (absl::Now() > end) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }
  std::string SubmitAndCancel(JobStore& store, const std::string& request) {
    NewJob job = MakeJob();
    job.request = request;
    const auto submitted = store.Submit(job);
    EXPECT_TRUE(submitted.ok() && store.Cancel("default", submitted->job.id).ok());
    return submitted->job.id;
  }
};

TEST_F(ErasedTest, DeletedAndPurgedRequestsGoFromTheFilesWhileTheStoreServes) {
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const std::string deleted = SubmitAndCancel(**store, "a secret prompt");
  SubmitAndCancel(**store, "another secret");
  SubmitAndCancel(**store, std::string(100'000, 'l') + " a long secret");  // on pages of its own
  EXPECT_TRUE(IsOnDisk("a secret prompt"));
  ASSERT_TRUE((*store)->Delete("default", deleted).ok());
  EXPECT_TRUE(GoesFromDisk("a secret prompt"));
  EXPECT_TRUE(IsOnDisk("another secret"));
  clock_.Advance(absl::Hours(1));
  ASSERT_TRUE((*store)->PurgeJobs(clock_.Now(), 100).ok());
  EXPECT_TRUE(GoesFromDisk("another secret"));
  EXPECT_TRUE(GoesFromDisk("a long secret"));
}

TEST_F(ErasedTest, AReaderOfAnotherProcessDelaysThatAndNothingElse) {
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const std::string deleted = SubmitAndCancel(**store, "a secret prompt");
  auto reader = Raw();
  ASSERT_TRUE(reader->Execute("BEGIN; SELECT count(*) FROM jobs;").ok());
  ASSERT_TRUE((*store)->Delete("default", deleted).ok());
  for (int i = 0; i < 20; ++i) SubmitAndCancel(**store, "a job beside it");
  EXPECT_TRUE(IsOnDisk("a secret prompt")) << "the reader may look at it yet";
  reader.reset();
  EXPECT_TRUE(GoesFromDisk("a secret prompt"));
}

TEST_F(SqliteFileTest, TooManyWaitingWritesAreRefusedAtOnce) {
  auto store = OpenSqliteJobStore({.path = path_, .max_pending = 0}, {}, clock_, random_);
  ASSERT_TRUE(store.ok());
  const auto refused = (*store)->Submit(MakeJob());
  EXPECT_TRUE(absl::IsUnavailable(refused.status())) << refused.status();
  EXPECT_TRUE(ClaimNext(**store, kWorker).ok()) << "what workers need is never refused";
}

}  // namespace
}  // namespace kino::scheduler
