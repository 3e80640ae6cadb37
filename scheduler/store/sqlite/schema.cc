#include "scheduler/store/sqlite/schema.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

namespace {

// Times are microseconds since 1970, durations microseconds; NULL is "none" or "no limit". States,
// priorities and causes are the numbers of scheduler/jobs/job.h: 1 is QUEUED, 2 RUNNING. Requests
// live apart from jobs, so that a state change does not rewrite megabytes. The partial indexes hold
// queued and running jobs only and stay small as history grows.
constexpr char kVersion1[] = R"sql(
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  model TEXT NOT NULL,
  priority INTEGER NOT NULL,
  request_id TEXT,
  fingerprint BLOB NOT NULL,
  server_version TEXT NOT NULL,
  create_us INTEGER NOT NULL,
  start_timeout_us INTEGER,
  run_timeout_us INTEGER,
  state INTEGER NOT NULL,
  state_number INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  token TEXT NOT NULL,
  cancel_requested INTEGER NOT NULL,
  start_us INTEGER,
  end_us INTEGER,
  start_deadline_us INTEGER,
  start_left_us INTEGER,
  not_before_us INTEGER,
  crashes INTEGER NOT NULL,
  out_of_memory INTEGER NOT NULL,
  interruptions INTEGER NOT NULL,
  error_code INTEGER NOT NULL,
  error_message TEXT NOT NULL,
  artifact_file TEXT,
  artifact_type TEXT,
  artifact_bytes INTEGER,
  artifact_sha256 TEXT,
  artifact_width INTEGER,
  artifact_height INTEGER,
  artifact_frames INTEGER,
  artifact_fps REAL,
  artifact_purged INTEGER NOT NULL,
  stats BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX jobs_by_request_id ON jobs(tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX jobs_by_tenant ON jobs(tenant, seq);
CREATE INDEX queue_by_model ON jobs(model, priority, seq) WHERE state = 1;
CREATE INDEX queue_by_order ON jobs(priority, seq) WHERE state = 1;
CREATE INDEX queue_by_deadline ON jobs(start_deadline_us)
  WHERE state = 1 AND start_deadline_us IS NOT NULL;
CREATE INDEX queue_by_not_before ON jobs(not_before_us)
  WHERE state = 1 AND not_before_us IS NOT NULL;
CREATE INDEX running_jobs ON jobs(seq) WHERE state = 2;
CREATE INDEX jobs_with_artifact ON jobs(end_us) WHERE artifact_file IS NOT NULL;

CREATE TABLE requests (
  job INTEGER PRIMARY KEY REFERENCES jobs(seq) ON DELETE CASCADE,
  request BLOB NOT NULL
) STRICT;

CREATE TABLE labels (
  job INTEGER NOT NULL REFERENCES jobs(seq) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (job, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  job INTEGER NOT NULL REFERENCES jobs(seq) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  token TEXT NOT NULL,
  worker TEXT NOT NULL,
  start_us INTEGER NOT NULL,
  end_us INTEGER,
  cause INTEGER NOT NULL,
  error_code INTEGER NOT NULL,
  error_message TEXT NOT NULL,
  PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  cursor INTEGER PRIMARY KEY AUTOINCREMENT,
  job INTEGER NOT NULL REFERENCES jobs(seq) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  state INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  time_us INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_job ON events(job, number);

CREATE TABLE assets (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  content_type TEXT NOT NULL,
  width INTEGER NOT NULL,
  height INTEGER NOT NULL,
  frames INTEGER NOT NULL,
  create_us INTEGER NOT NULL,
  file TEXT NOT NULL
) STRICT;
CREATE INDEX assets_by_tenant ON assets(tenant, seq);
CREATE INDEX assets_by_age ON assets(create_us);

CREATE TABLE job_assets (
  job INTEGER NOT NULL REFERENCES jobs(seq) ON DELETE CASCADE,
  asset TEXT NOT NULL,
  PRIMARY KEY (job, asset)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_assets_by_asset ON job_assets(asset);

CREATE TABLE job_counts (
  state INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  jobs INTEGER NOT NULL,
  PRIMARY KEY (state, priority)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER count_insert AFTER INSERT ON jobs BEGIN
  INSERT INTO job_counts VALUES (NEW.state, NEW.priority, 1)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER count_delete AFTER DELETE ON jobs BEGIN
  UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state AND priority = OLD.priority;
END;
CREATE TRIGGER count_change AFTER UPDATE OF state ON jobs WHEN NEW.state <> OLD.state BEGIN
  UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state AND priority = OLD.priority;
  INSERT INTO job_counts VALUES (NEW.state, NEW.priority, 1)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
)sql";

// The machine-readable reason of a job's error (scheduler/status.h), "" for none.
constexpr char kVersion2[] = R"sql(
ALTER TABLE jobs ADD COLUMN error_reason TEXT NOT NULL DEFAULT '';
)sql";

constexpr char kVersion3[] =
    // --- Scale: every list, claim, position and purge has an index that leads straight to it. ---
    // A list walks one index per state, newest first (job_search.h); the row's seq ends every
    // entry.
    R"sql(
DROP INDEX jobs_by_tenant;
CREATE INDEX jobs_by_state ON jobs(state);
CREATE INDEX jobs_by_tenant_state ON jobs(tenant, state);
CREATE INDEX jobs_by_model_state ON jobs(model, state);
CREATE INDEX jobs_by_tenant_model_state ON jobs(tenant, model, state);
ALTER TABLE labels ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
UPDATE labels SET tenant = (SELECT tenant FROM jobs WHERE seq = labels.job);
CREATE INDEX labels_by_value ON labels(tenant, key, value, job);
)sql"
    // The queue is read whole, once, in its order; the order of claims is kept in memory.
    R"sql(
DROP INDEX queue_by_model;
DROP INDEX queue_by_deadline;
DROP INDEX queue_by_not_before;
)sql"
    // Purges go by the end; the sweep at start asks for files by name.
    R"sql(
CREATE INDEX ended_jobs ON jobs(end_us) WHERE end_us IS NOT NULL;
CREATE INDEX jobs_by_artifact ON jobs(artifact_file) WHERE artifact_file IS NOT NULL;
CREATE INDEX assets_by_file ON assets(file);
)sql"
    // What the store knows of its own file. 'closed' is there after a clean stop only.
    R"sql(
CREATE TABLE marks (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
)sql"
    // --- Failures that an operator or a device's breaker has taken back, and what is known of a
    // crash. ---
    R"sql(
ALTER TABLE jobs ADD COLUMN unclean_stops INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN uncounted_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN process_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN evidence BLOB NOT NULL DEFAULT x'';
ALTER TABLE attempts ADD COLUMN forgiven INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr char kVersion4[] =
    // How long a result is kept where the job says so, and when it goes; what a run's length is
    // estimated from.
    R"sql(
ALTER TABLE jobs ADD COLUMN result_ttl_us INTEGER;
ALTER TABLE jobs ADD COLUMN expire_us INTEGER;
ALTER TABLE jobs ADD COLUMN shape TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN steps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN flops REAL NOT NULL DEFAULT 0;
DROP INDEX jobs_with_artifact;
CREATE INDEX results_by_end ON jobs(end_us)
  WHERE artifact_file IS NOT NULL AND expire_us IS NULL;
CREATE INDEX results_by_expiry ON jobs(expire_us)
  WHERE artifact_file IS NOT NULL AND expire_us IS NOT NULL;
)sql"
    // Bytes of the artifacts and assets that a tenant has on the disk.
    R"sql(
CREATE TABLE disk_use (
  tenant TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO disk_use
  SELECT tenant, sum(bytes) FROM (
    SELECT tenant, artifact_bytes AS bytes FROM jobs
      WHERE artifact_file IS NOT NULL AND artifact_bytes IS NOT NULL
    UNION ALL SELECT tenant, bytes FROM assets) GROUP BY tenant;
CREATE TRIGGER use_result AFTER UPDATE OF artifact_file ON jobs
  WHEN OLD.artifact_file IS NULL AND NEW.artifact_file IS NOT NULL BEGIN
  INSERT INTO disk_use VALUES (NEW.tenant, NEW.artifact_bytes)
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER free_result AFTER UPDATE OF artifact_file ON jobs
  WHEN OLD.artifact_file IS NOT NULL AND NEW.artifact_file IS NULL BEGIN
  UPDATE disk_use SET bytes = bytes - coalesce(OLD.artifact_bytes, 0) WHERE tenant = OLD.tenant;
END;
CREATE TRIGGER free_job AFTER DELETE ON jobs WHEN OLD.artifact_file IS NOT NULL BEGIN
  UPDATE disk_use SET bytes = bytes - coalesce(OLD.artifact_bytes, 0) WHERE tenant = OLD.tenant;
END;
CREATE TRIGGER use_asset AFTER INSERT ON assets BEGIN
  INSERT INTO disk_use VALUES (NEW.tenant, NEW.bytes)
    ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER free_asset AFTER DELETE ON assets BEGIN
  UPDATE disk_use SET bytes = bytes - OLD.bytes WHERE tenant = OLD.tenant;
END;
)sql";

constexpr char kVersion5[] = R"sql(
ALTER TABLE assets ADD COLUMN fps REAL NOT NULL DEFAULT 0;
)sql";

// Step i brings version i to version i + 1. Steps of released versions are never changed.
constexpr const char* kMigrations[] = {kVersion1, kVersion2, kVersion3, kVersion4, kVersion5};

}  // namespace

int SchemaVersion() { return static_cast<int>(std::size(kMigrations)); }

absl::Status MigrateSchema(Connection& db) { return MigrateSchemaTo(db, SchemaVersion()); }

absl::Status MigrateSchemaTo(Connection& db, int wanted) {
  int version = 0;
  {
    KINO_ASSIGN_OR_RETURN(Statement statement, db.PrepareOnce("PRAGMA user_version"));
    KINO_ASSIGN_OR_RETURN(const bool has_row, statement.Step());
    if (!has_row) return absl::InternalError("job store: PRAGMA user_version gave no row");
    version = statement.Int(0);
  }
  if (version > SchemaVersion()) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "the job store has schema version ", version, ", this Kino knows up to ",
            SchemaVersion(), ": start the newer Kino that wrote it, or restore a backup")),
        kReasonStoreTooNew);
  }
  for (; version < wanted; ++version) {
    absl::Status status =
        db.Execute(absl::StrCat("BEGIN IMMEDIATE;", kMigrations[version],
                                "PRAGMA user_version = ", version + 1, "; COMMIT;"));
    if (!status.ok()) {
      if (db.is_in_transaction()) db.Execute("ROLLBACK").IgnoreError();
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace kino::scheduler
