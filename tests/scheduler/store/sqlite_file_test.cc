// What is special to the SQLite store: its file.
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/schema.h"
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
  // Takes away what the third version added.
  void UndoVersion3() {
    const auto db = Raw();
    for (const char* column :
         {"jobs DROP COLUMN unclean_stops", "jobs DROP COLUMN uncounted_attempts",
          "attempts DROP COLUMN process_id", "attempts DROP COLUMN evidence",
          "attempts DROP COLUMN forgiven"}) {
      EXPECT_TRUE(db->Execute(std::string("ALTER TABLE ") + column).ok()) << column;
    }
    EXPECT_TRUE(db->Execute("PRAGMA user_version = 2").ok());
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

TEST_F(SqliteFileTest, StoreOfTheFirstVersionIsTakenOver) {
  std::string id;
  {
    auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    id = (*store)->Submit(MakeJob())->job.id;
  }
  UndoVersion3();
  ASSERT_TRUE(Raw()->Execute("ALTER TABLE jobs DROP COLUMN error_reason").ok());
  ASSERT_TRUE(Raw()->Execute("PRAGMA user_version = 1").ok());
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->GetAnyTenant(id)->request, MakeJob().request);
  ASSERT_TRUE(
      (*store)
          ->FailQueued(id, WithReason(absl::FailedPreconditionError("x"), kReasonDoesNotFit))
          .ok());
  EXPECT_EQ(ReasonOf((*store)->GetAnyTenant(id)->error), kReasonDoesNotFit);
}

TEST_F(SqliteFileTest, StoreOfTheSecondVersionKeepsItsJobsAndTheirCounts) {
  std::string crashed, running, ended;
  {
    auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    for (std::string* id : {&crashed, &running, &ended}) *id = (*store)->Submit(MakeJob())->job.id;
    const AttemptRef ref = (*(*store)->Claim(crashed, "w", 7))->ref;
    ASSERT_TRUE(
        (*store)
            ->Fail(ref, {.cause = FailureCause::kCrash, .error = absl::InternalError("it broke")})
            .ok());
    ASSERT_TRUE((*(*store)->Claim(running, "w", 7)).has_value());
    const AttemptRef last = (*(*store)->Claim(ended, "w", 7))->ref;
    ASSERT_TRUE((*store)->Commit(last, MakeArtifact("a.mp4"), "stats").ok());
  }
  UndoVersion3();
  auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto job = (*store)->GetAnyTenant(crashed);
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
  EXPECT_EQ(attempts->front().ref.job_id, running);
  EXPECT_EQ(attempts->front().process_id, 0) << "not known";
  EXPECT_EQ((*store)->GetAnyTenant(ended)->artifact->file_name, "a.mp4");
  // The attempt from before counts on.
  const AttemptRef second = (*(*store)->Claim(crashed, "w", 7))->ref;
  EXPECT_EQ(second.attempt, 2);
  EXPECT_EQ(
      (*store)
          ->Fail(second, {.cause = FailureCause::kCrash, .error = absl::InternalError("it broke")})
          ->state,
      JobState::kQuarantined);
}

TEST_F(SqliteFileTest, FileThatIsNoDatabaseIsRefused) {
  std::ofstream(path_) << std::string(100'000, 'x');
  const auto store = Open();
  EXPECT_TRUE(absl::IsDataLoss(store.status())) << store.status();
  EXPECT_EQ(ReasonOf(store.status()), kReasonStoreDamaged);
}

TEST_F(SqliteFileTest, DamagedPageIsFoundAtStart) {
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

TEST_F(SqliteFileTest, DeletedRequestIsOverwritten) {
  NewJob job = MakeJob();
  job.request = "a secret wish of somebody";
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    const auto submitted = (*store)->Submit(job);
    ASSERT_TRUE((*store)->Cancel("default", submitted->job.id).ok());
    ASSERT_TRUE((*store)->Delete("default", submitted->job.id).ok());
  }
  std::ifstream file(path_, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  ASSERT_GT(bytes.size(), 4096u);
  EXPECT_EQ(bytes.find("secret wish"), std::string::npos);
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
