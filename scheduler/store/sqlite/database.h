// RAII around sqlite3: connections, cached statements, and SQLite's result codes as statuses.
// A connection and its statements belong to one thread at a time. Texts are bound and read with
// their length.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::scheduler {

// `code` as a status: RESOURCE_EXHAUSTED (DISK_FULL), UNAVAILABLE (STORE_UNAVAILABLE), DATA_LOSS
// (STORE_DAMAGED), else INTERNAL. The message names no path: it may reach clients.
absl::Status SqliteError(int code, const std::string& detail);

// Binds as BLOB; a plain std::string binds as TEXT. Refers to the string.
struct Blob {
  const std::string& bytes;
};

// A prepared statement that goes back to its connection's cache, reset, when this goes out of
// scope.
class Statement {
 public:
  Statement(sqlite3* db, sqlite3_stmt* statement, bool is_cached)
      : db_(db), statement_(statement), is_cached_(is_cached) {}
  Statement(Statement&& other) noexcept
      : db_(other.db_),
        statement_(std::exchange(other.statement_, nullptr)),
        is_cached_(other.is_cached_),
        next_(other.next_),
        bind_code_(other.bind_code_) {}
  Statement& operator=(Statement&&) = delete;
  ~Statement();

  // Binds the next parameter. Failures are reported by Step. The value must live until the last
  // Step.
  void Bind(int64_t value);
  void Bind(int value) { Bind(static_cast<int64_t>(value)); }
  void Bind(bool value) { Bind(static_cast<int64_t>(value)); }
  void Bind(double value);
  void Bind(const std::string& value);
  void Bind(const char*) = delete;  // would be taken for a bool
  void Bind(Blob value);
  void Bind(std::nullopt_t);
  template <typename T>
  void Bind(const std::optional<T>& value) {
    if (value) {
      Bind(*value);
    } else {
      Bind(std::nullopt);
    }
  }

  // To be bound and stepped anew.
  void Reset();

  // True: a row is there. False: done.
  absl::StatusOr<bool> Step();

  bool IsNull(int column) const;
  int64_t Int64(int column) const;
  int Int(int column) const { return static_cast<int>(Int64(column)); }
  double Double(int column) const;
  std::string Text(int column) const;  // of TEXT and BLOB
  std::optional<int64_t> OptionalInt64(int column) const;

 private:
  sqlite3* db_;
  sqlite3_stmt* statement_;
  bool is_cached_;
  int next_ = 1;
  int bind_code_ = SQLITE_OK;
};

class Connection {
 public:
  // `flags` as of sqlite3_open_v2; `vfs` empty for the default.
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const std::string& path, int flags,
                                                          const std::string& vfs);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  // Any number of statements, without parameters or results.
  absl::Status Execute(const std::string& sql);

  // A statement with `values` bound. `sql` should come from a small set: it is compiled once and
  // kept.
  template <typename... Values>
  absl::StatusOr<Statement> Query(const std::string& sql, const Values&... values) {
    absl::StatusOr<Statement> statement = Prepare(sql, /*is_cached=*/true);
    if (statement.ok()) (statement->Bind(values), ...);
    return statement;
  }
  // Carries a statement out and gives the number of changed rows.
  template <typename... Values>
  absl::StatusOr<int64_t> Run(const std::string& sql, const Values&... values) {
    absl::StatusOr<Statement> statement = Query(sql, values...);
    if (!statement.ok()) return statement.status();
    return Finish(*statement);
  }
  // For SQL put together at run time: compiled anew, not kept, bound by the caller.
  absl::StatusOr<Statement> PrepareOnce(const std::string& sql) {
    return Prepare(sql, /*is_cached=*/false);
  }

  // Ends what the connection's thread carries out just now, with UNAVAILABLE. From any thread.
  void Interrupt() { sqlite3_interrupt(db_); }

  // Takes the write-ahead log over into the database and empties it. False: readers still need it.
  absl::StatusOr<bool> EmptyLog();

  int64_t last_insert_rowid() const { return sqlite3_last_insert_rowid(db_); }
  // SQLite ends a transaction by itself on some errors.
  bool is_in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }

 private:
  explicit Connection(sqlite3* db) : db_(db) {}
  absl::StatusOr<Statement> Prepare(const std::string& sql, bool is_cached);
  absl::StatusOr<int64_t> Finish(Statement& statement);

  sqlite3* db_;
  std::unordered_map<std::string, sqlite3_stmt*> cache_;
};

}  // namespace kino::scheduler
