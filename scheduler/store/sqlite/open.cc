#include "scheduler/store/sqlite/open.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/database.h"
#include "scheduler/store/sqlite/file_lock.h"
#include "scheduler/store/sqlite/schema.h"
#include "scheduler/store/sqlite/sqlite_job_store.h"

namespace kino::scheduler {

namespace {

absl::Status FileStatus(int error, const std::string& what) {
  return error == 0 ? absl::OkStatus() : absl::ErrnoToStatus(error, what);
}

// The file exists with mode 0600 before SQLite sees it (its -wal and -shm take the mode over), and
// so does its name.
absl::Status CreateFile(FileLayer& files, const std::string& path) {
  std::unique_ptr<File> file;
  KINO_RETURN_IF_ERROR(FileStatus(files.Open(path, OpenMode::kCreate, file),
                                  absl::StrCat("opening the job store '", path, "'")));
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash);
  return FileStatus(files.SyncFolder(folder.empty() ? "/" : folder),
                    absl::StrCat("fsync of '", folder, "'"));
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

absl::StatusOr<bool> IsMarkedClosed(Connection& db) {
  KINO_ASSIGN_OR_RETURN(Statement mark,
                        db.PrepareOnce("SELECT 1 FROM marks WHERE name = 'closed'"));
  return mark.Step();
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> OpenSqliteJobStore(const SqliteOptions& sqlite,
                                                             const StoreOptions& options,
                                                             const Clock& clock,
                                                             RandomSource& random) {
  FileLayer& files = sqlite.files == nullptr ? RealFiles() : *sqlite.files;
  KINO_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> lock,
                        FileLock::Acquire(files, sqlite.path + ".lock"));
  KINO_RETURN_IF_ERROR(CreateFile(files, sqlite.path));
  KINO_ASSIGN_OR_RETURN(
      std::unique_ptr<Connection> db,
      Connection::Open(sqlite.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, sqlite.vfs));
  KINO_RETURN_IF_ERROR(Configure(*db));
  KINO_RETURN_IF_ERROR(MigrateSchema(*db));
  KINO_ASSIGN_OR_RETURN(const bool is_marked, IsMarkedClosed(*db));
  std::unique_ptr<Connection> check;
  if (!is_marked) {
    KINO_ASSIGN_OR_RETURN(check, Connection::Open(sqlite.path, SQLITE_OPEN_READONLY, sqlite.vfs));
  }
  return std::make_unique<SqliteJobStore>(sqlite, options, clock, random, std::move(lock),
                                          std::move(db), std::move(check));
}

SqliteJobStore::SqliteJobStore(const SqliteOptions& sqlite, const StoreOptions& options,
                               const Clock& clock, RandomSource& random,
                               std::unique_ptr<FileLock> lock, std::unique_ptr<Connection> db,
                               std::unique_ptr<Connection> check)
    : sqlite_(sqlite),
      options_(options),
      clock_(clock),
      random_(random),
      lock_(std::move(lock)),
      writer_(std::make_unique<Writer>(std::move(db), sqlite.max_batch,
                                       /*is_marked=*/check == nullptr, options_, clock_)) {
  if (check == nullptr) {
    is_sound_ = true;
    return;
  }
  check_ = std::make_unique<FileCheck>(std::move(check), [this](const absl::Status& found) {
    if (found.ok()) {
      is_sound_ = true;
    } else {
      options_.log(absl::StrCat("job store: the check of the file: ", found.ToString()));
    }
    options_.checked(found);
  });
}

SqliteJobStore::~SqliteJobStore() {
  writer_->Stop();
  check_.reset();
  // A file that was not looked through to its end, or is damaged, is to be looked at next time.
  if (!is_sound_) return;
  const absl::Status marked = writer_->MarkClosed();
  if (!marked.ok()) {
    options_.log(absl::StrCat("job store: not marked as closed: ", marked.ToString()));
  }
}

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
