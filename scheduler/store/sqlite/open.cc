#include "scheduler/store/sqlite/open.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/folder_lock.h"
#include "scheduler/store/sqlite/schema.h"
#include "scheduler/store/sqlite/sqlite_job_store.h"

namespace kino::scheduler {

namespace {

// The file exists with mode 0600 before SQLite sees it (its -wal and -shm take the mode over), and
// so does its name.
absl::Status CreateFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening the job store '", path, "'"));
  close(fd);
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int folder_fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening '", folder, "'"));
  absl::Status status;
  if (fsync(folder_fd) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("fsync of '", folder, "'"));
  }
  close(folder_fd);
  return status;
}

absl::StatusOr<std::string> Ask(Connection& db, const std::string& pragma) {
  KINO_ASSIGN_OR_RETURN(Statement statement, db.PrepareOnce(pragma));
  KINO_ASSIGN_OR_RETURN(const bool has_row, statement.Step());
  return has_row ? statement.Text(0) : std::string();
}

absl::Status Configure(Connection& db) {
  KINO_ASSIGN_OR_RETURN(const std::string mode, Ask(db, "PRAGMA journal_mode = WAL"));
  if (mode != "wal") {
    return absl::FailedPreconditionError(
        absl::StrCat("job store: want journal mode wal, the file system gives '", mode, "'"));
  }
  // FULL: an acknowledged commit survives a power cut. secure_delete: removed prompts are
  // overwritten. No mmap: an I/O error there would be a signal.
  return db.Execute(
      "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;"
      "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;"
      "PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;");
}

absl::Status CheckFile(Connection& db) {
  KINO_ASSIGN_OR_RETURN(const std::string finding, Ask(db, "PRAGMA quick_check(1)"));
  if (finding == "ok") return absl::OkStatus();
  return WithReason(absl::DataLossError(absl::StrCat(
                        "the job store is damaged: ", finding,
                        ": restore a backup, or move the file away to start with an empty queue")),
                    kReasonStoreDamaged);
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> OpenSqliteJobStore(const SqliteOptions& sqlite,
                                                             const StoreOptions& options,
                                                             const Clock& clock,
                                                             RandomSource& random) {
  KINO_ASSIGN_OR_RETURN(std::unique_ptr<FolderLock> lock,
                        FolderLock::Acquire(sqlite.path + ".lock"));
  KINO_RETURN_IF_ERROR(CreateFile(sqlite.path));
  KINO_ASSIGN_OR_RETURN(
      std::unique_ptr<Connection> db,
      Connection::Open(sqlite.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, sqlite.vfs));
  KINO_RETURN_IF_ERROR(Configure(*db));
  KINO_RETURN_IF_ERROR(CheckFile(*db));
  KINO_RETURN_IF_ERROR(MigrateSchema(*db));
  return std::make_unique<SqliteJobStore>(sqlite, options, clock, random, std::move(lock),
                                          std::move(db));
}

SqliteJobStore::SqliteJobStore(const SqliteOptions& sqlite, const StoreOptions& options,
                               const Clock& clock, RandomSource& random,
                               std::unique_ptr<FolderLock> lock, std::unique_ptr<Connection> db)
    : sqlite_(sqlite),
      options_(options),
      clock_(clock),
      random_(random),
      lock_(std::move(lock)),
      writer_(std::make_unique<Writer>(std::move(db), sqlite.max_batch, options.log)) {}

void SqliteJobStore::Start(From from, std::unique_ptr<WriteOperation> operation) {
  const size_t limit = from == From::kClient ? static_cast<size_t>(sqlite_.max_pending) : SIZE_MAX;
  if (writer_->Enqueue(operation, limit)) return;
  // Too many wait, or the store is being closed.
  operation->Finish(WithReason(absl::UnavailableError("the job store takes no more writes now"),
                               kReasonStoreUnavailable));
}

absl::Status SqliteJobStore::ReadSnapshot(const std::function<absl::Status(Connection&)>& read) {
  std::unique_ptr<Connection> db;
  {
    absl::MutexLock lock(&readers_mutex_);
    const auto is_free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(readers_mutex_) {
      return !idle_readers_.empty() || open_readers_ < sqlite_.max_readers;
    };
    readers_mutex_.Await(absl::Condition(&is_free));
    if (!idle_readers_.empty()) {
      db = std::move(idle_readers_.back());
      idle_readers_.pop_back();
    } else {
      ++open_readers_;
    }
  }
  absl::Status status;
  if (db == nullptr) {
    absl::StatusOr<std::unique_ptr<Connection>> opened =
        Connection::Open(sqlite_.path, SQLITE_OPEN_READONLY, sqlite_.vfs);
    if (opened.ok()) {
      db = *std::move(opened);
    } else {
      status = opened.status();
    }
  }
  if (status.ok()) status = db->Run("BEGIN").status();
  if (status.ok()) status = read(*db);
  // A connection that cannot end its transaction would hold an old snapshot for ever: it is closed
  // instead.
  const bool is_reusable = db != nullptr && (!db->is_in_transaction() || db->Run("ROLLBACK").ok());
  absl::MutexLock lock(&readers_mutex_);
  if (is_reusable) {
    idle_readers_.push_back(std::move(db));
  } else {
    --open_readers_;
  }
  return status;
}

}  // namespace kino::scheduler
