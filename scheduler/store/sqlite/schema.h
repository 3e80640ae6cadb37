// The tables of the SQLite store and the steps that bring an older file up to them. PRAGMA
// user_version holds the version.
#pragma once

#include "absl/status/status.h"
#include "scheduler/store/sqlite/database.h"

namespace kino::scheduler {

// The version this Kino writes.
int SchemaVersion();

// Runs the missing steps, each in one transaction with its version: a crash leaves the old or the
// new schema, never one between. FAILED_PRECONDITION (STORE_TOO_NEW) when the file's version is
// higher than SchemaVersion().
absl::Status MigrateSchema(Connection& db);

// The same up to version `wanted` only: a file as an older Kino left it, for tests.
absl::Status MigrateSchemaTo(Connection& db, int wanted);

}  // namespace kino::scheduler
