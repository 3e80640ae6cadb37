#include "scheduler/store/sqlite/database.h"

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {
namespace {

// For another process that looks at the file, such as a backup.
constexpr int kBusyMs = 5000;

}  // namespace

absl::Status SqliteError(int code, const std::string& detail) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return WithReason(absl::ResourceExhaustedError("the job store's disk is full"),
                        kReasonDiskFull);
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_NOMEM:
    case SQLITE_PROTOCOL:
    case SQLITE_INTERRUPT:
      return WithReason(
          absl::UnavailableError(absl::StrCat(
              "the job store cannot be used now: ", sqlite3_errstr(code), " (code ", code, ")")),
          kReasonStoreUnavailable);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return WithReason(
          absl::DataLossError(absl::StrCat("the job store is damaged: ", sqlite3_errstr(code),
                                           " (code ", code, ")")),
          kReasonStoreDamaged);
    default:
      return absl::InternalError(
          absl::StrCat("job store: ", sqlite3_errstr(code), " (code ", code, "): ", detail));
  }
}

Statement::~Statement() {
  if (statement_ == nullptr) return;
  if (is_cached_) {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  } else {
    sqlite3_finalize(statement_);
  }
}

void Statement::Bind(int64_t value) {
  bind_code_ |= sqlite3_bind_int64(statement_, next_++, value);
}
void Statement::Bind(double value) {
  bind_code_ |= sqlite3_bind_double(statement_, next_++, value);
}
void Statement::Bind(const std::string& value) {
  bind_code_ |= sqlite3_bind_text64(statement_, next_++, value.data(), value.size(), SQLITE_STATIC,
                                    SQLITE_UTF8);
}
void Statement::Bind(Blob value) {
  // A null pointer would bind NULL, which is not the empty blob.
  const char* data = value.bytes.empty() ? "" : value.bytes.data();
  bind_code_ |= sqlite3_bind_blob64(statement_, next_++, data, value.bytes.size(), SQLITE_STATIC);
}
void Statement::Bind(std::nullopt_t) { bind_code_ |= sqlite3_bind_null(statement_, next_++); }

void Statement::Reset() {
  sqlite3_reset(statement_);
  next_ = 1;
  bind_code_ = SQLITE_OK;
}

absl::StatusOr<bool> Statement::Step() {
  if (bind_code_ != SQLITE_OK) {
    return absl::InternalError(absl::StrCat("job store: binding parameters of '",
                                            sqlite3_sql(statement_), "' failed: ", bind_code_));
  }
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return SqliteError(sqlite3_extended_errcode(db_), sqlite3_errmsg(db_));
}

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}
int64_t Statement::Int64(int column) const { return sqlite3_column_int64(statement_, column); }
double Statement::Double(int column) const { return sqlite3_column_double(statement_, column); }
std::string Statement::Text(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return data == nullptr ? std::string()
                         : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}
std::optional<int64_t> Statement::OptionalInt64(int column) const {
  if (IsNull(column)) return std::nullopt;
  return Int64(column);
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const std::string& path, int flags,
                                                             const std::string& vfs) {
  sqlite3* db = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &db, flags | SQLITE_OPEN_NOMUTEX,
                                   vfs.empty() ? nullptr : vfs.c_str());
  if (code != SQLITE_OK) {
    const absl::Status status = SqliteError(db == nullptr ? code : sqlite3_extended_errcode(db),
                                            db == nullptr ? "" : sqlite3_errmsg(db));
    sqlite3_close_v2(db);
    return status;
  }
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, kBusyMs);
  return std::unique_ptr<Connection>(new Connection(db));
}

Connection::~Connection() {
  for (const auto& [sql, statement] : cache_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

absl::StatusOr<bool> Connection::EmptyLog() {
  // Nobody is waited for.
  sqlite3_busy_timeout(db_, 0);
  const int code =
      sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  sqlite3_busy_timeout(db_, kBusyMs);
  if (code == SQLITE_OK) return true;
  if ((code & 0xff) == SQLITE_BUSY) return false;
  return SqliteError(sqlite3_extended_errcode(db_), sqlite3_errmsg(db_));
}

absl::Status Connection::Execute(const std::string& sql) {
  if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) {
    return absl::OkStatus();
  }
  return SqliteError(sqlite3_extended_errcode(db_), sqlite3_errmsg(db_));
}

absl::StatusOr<Statement> Connection::Prepare(const std::string& sql, bool is_cached) {
  if (is_cached) {
    const auto found = cache_.find(sql);
    if (found != cache_.end()) return Statement(db_, found->second, true);
  }
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v3(db_, sql.c_str(), static_cast<int>(sql.size()),
                         is_cached ? SQLITE_PREPARE_PERSISTENT : 0, &statement, nullptr);
  if (code != SQLITE_OK) return SqliteError(sqlite3_extended_errcode(db_), sqlite3_errmsg(db_));
  if (is_cached) cache_.emplace(sql, statement);
  return Statement(db_, statement, is_cached);
}

absl::StatusOr<int64_t> Connection::Finish(Statement& statement) {
  while (true) {
    KINO_ASSIGN_OR_RETURN(const bool has_row, statement.Step());
    if (!has_row) return sqlite3_changes64(db_);
  }
}

}  // namespace kino::scheduler
