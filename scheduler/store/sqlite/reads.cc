// The reads. Each sees one snapshot of the file.
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/job_search.h"
#include "scheduler/store/sqlite/sqlite_job_store.h"

namespace kino::scheduler {

namespace {

// FNV-1a over the filter: a page token goes with one filter only.
uint64_t Fingerprint(const JobFilter& filter) {
  std::string text = absl::StrCat(filter.tenant.size(), ":", filter.tenant, filter.model.size(),
                                  ":", filter.model);
  for (const JobState state : filter.states) absl::StrAppend(&text, static_cast<int>(state), ",");
  for (const auto& [key, value] : filter.labels) {
    absl::StrAppend(&text, key.size(), ":", key, value.size(), ":", value);
  }
  uint64_t hash = 14695981039346656037ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

// The next page begins below `before_seq`.
std::string MakePageToken(const JobFilter& filter, int64_t before_seq) {
  return absl::StrFormat("%x-%016x", before_seq, Fingerprint(filter));
}

absl::StatusOr<int64_t> ParsePageToken(const JobFilter& filter, const std::string& token) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(token, absl::MaxSplits('-', 1));
  int64_t seq = 0;
  uint64_t hash = 0;
  if (!absl::SimpleHexAtoi(parts.first, &seq) || !absl::SimpleHexAtoi(parts.second, &hash) ||
      seq <= 0) {
    return absl::InvalidArgumentError("page_token: not one that this server made");
  }
  if (hash != Fingerprint(filter)) {
    return absl::InvalidArgumentError("page_token: made for another filter");
  }
  return seq;
}

absl::StatusOr<std::string> IdOf(Connection& db, int64_t seq) {
  KINO_ASSIGN_OR_RETURN(Statement row, db.Query("SELECT id FROM jobs WHERE seq = ?", seq));
  KINO_ASSIGN_OR_RETURN(const bool is_there, row.Step());
  if (!is_there) return absl::DataLossError("job store: an index names a job that is not there");
  return row.Text(0);
}

Asset ReadAsset(const Statement& row) {
  return {.id = row.Text(0),
          .tenant = row.Text(1),
          .size_bytes = row.Int64(2),
          .sha256 = row.Text(3),
          .content_type = row.Text(4),
          .width = row.Int(5),
          .height = row.Int(6),
          .num_frames = row.Int(7),
          .fps = row.Double(8),
          .create_time = absl::FromUnixMicros(row.Int64(9)),
          .file_name = row.Text(10)};
}

StateEvent ReadEvent(const Statement& row, int column) {
  return {.number = row.Int64(column),
          .state = static_cast<JobState>(row.Int(column + 1)),
          .attempt = row.Int(column + 2),
          .time = absl::FromUnixMicros(row.Int64(column + 3)),
          .reason = row.Text(column + 4)};
}

// What ReadQueued reads.
constexpr char kQueuedColumns[] =
    "jobs.id, jobs.tenant, jobs.model, jobs.priority, jobs.seq, jobs.not_before_us, "
    "jobs.start_deadline_us, jobs.shape, jobs.steps, jobs.flops";

// A back-off that ends after `farthest` is left out.
QueuedJob ReadQueued(const Statement& row, int column, absl::Time farthest) {
  QueuedJob job{.id = row.Text(column),
                .model = row.Text(column + 2),
                .priority = static_cast<Priority>(row.Int(column + 3)),
                .order = row.Int64(column + 4),
                .tenant = row.Text(column + 1),
                .work = ReadWork(row, column + 7)};
  if (!row.IsNull(column + 5)) {
    const absl::Time end = absl::FromUnixMicros(row.Int64(column + 5));
    if (end <= farthest) job.retry_not_before = end;
  }
  if (!row.IsNull(column + 6)) job.start_deadline = absl::FromUnixMicros(row.Int64(column + 6));
  return job;
}

}  // namespace

absl::StatusOr<Job> SqliteJobStore::Get(const std::string& tenant, const std::string& job_id) {
  return Read<Job>([&](Connection& db) -> absl::StatusOr<Job> {
    KINO_ASSIGN_OR_RETURN(JobRow row, LoadTenantRow(db, tenant, job_id));
    return LoadWhole(db, std::move(row));
  });
}

absl::StatusOr<Job> SqliteJobStore::GetAnyTenant(const std::string& job_id) {
  return Read<Job>([&](Connection& db) -> absl::StatusOr<Job> {
    KINO_ASSIGN_OR_RETURN(JobRow row, LoadRow(db, job_id));
    return LoadWhole(db, std::move(row));
  });
}

absl::StatusOr<std::optional<Job>> SqliteJobStore::FindByRequestId(const std::string& tenant,
                                                                   const std::string& request_id) {
  using Found = std::optional<Job>;
  return Read<Found>([&](Connection& db) -> absl::StatusOr<Found> {
    std::string id;
    {
      KINO_ASSIGN_OR_RETURN(
          Statement row,
          db.Query("SELECT id FROM jobs WHERE tenant = ? AND request_id = ?", tenant, request_id));
      KINO_ASSIGN_OR_RETURN(const bool is_there, row.Step());
      if (!is_there) return std::nullopt;
      id = row.Text(0);
    }
    KINO_ASSIGN_OR_RETURN(JobRow row, LoadRow(db, id));
    KINO_ASSIGN_OR_RETURN(Job job, LoadWhole(db, std::move(row)));
    return job;
  });
}

absl::StatusOr<JobPage> SqliteJobStore::List(const JobFilter& filter, int page_size,
                                             const std::string& page_token, int64_t max_bytes) {
  if (page_size < 1 || page_size > 1000) {
    return absl::InvalidArgumentError(absl::StrCat("page_size: want 1 to 1000, got ", page_size));
  }
  int64_t before_seq = INT64_MAX;
  if (!page_token.empty()) {
    KINO_ASSIGN_OR_RETURN(before_seq, ParsePageToken(filter, page_token));
  }
  return Read<JobPage>([&](Connection& db) -> absl::StatusOr<JobPage> {
    KINO_ASSIGN_OR_RETURN(JobSearch search,
                          JobSearch::Start(db, filter, before_seq, sqlite_.max_list_steps));
    JobPage page;
    int64_t last_seq = 0, bytes = 0;
    while (true) {
      KINO_ASSIGN_OR_RETURN(const std::optional<int64_t> seq, search.Next());
      if (!seq) {
        if (search.is_cut_off()) page.next_page_token = MakePageToken(filter, search.rest());
        return page;
      }
      // One more than asked for tells that there is a next page.
      if (page.jobs.size() == static_cast<size_t>(page_size)) break;
      KINO_ASSIGN_OR_RETURN(const std::string id, IdOf(db, *seq));
      KINO_ASSIGN_OR_RETURN(JobRow row, LoadRow(db, id));
      KINO_ASSIGN_OR_RETURN(Job job, LoadWhole(db, std::move(row)));
      const auto size = static_cast<int64_t>(job.request.size() + job.stats.size());
      if (!page.jobs.empty() && size > max_bytes - bytes) break;
      bytes += size;
      last_seq = *seq;
      page.jobs.push_back(std::move(job));
    }
    page.next_page_token = MakePageToken(filter, last_seq);
    return page;
  });
}

absl::Status SqliteJobStore::CheckAttempt(const AttemptRef& ref) {
  return ReadSnapshot([&](Connection& db) { return LoadAttemptRow(db, ref).status(); });
}

absl::StatusOr<std::vector<RunningAttempt>> SqliteJobStore::RunningAttempts() {
  using Attempts = std::vector<RunningAttempt>;
  return Read<Attempts>([&](Connection& db) -> absl::StatusOr<Attempts> {
    KINO_ASSIGN_OR_RETURN(
        Statement rows,
        db.Query("SELECT jobs.id, jobs.attempt, jobs.token, attempts.worker, attempts.start_us, "
                 "jobs.run_timeout_us, jobs.cancel_requested, attempts.process_id, jobs.tenant "
                 "FROM jobs INDEXED BY running_jobs JOIN attempts "
                 "ON attempts.job = jobs.seq AND attempts.number = jobs.attempt "
                 "WHERE jobs.state = 2 ORDER BY jobs.seq"));
    Attempts attempts;
    while (true) {
      KINO_ASSIGN_OR_RETURN(const bool has_row, rows.Step());
      if (!has_row) return attempts;
      attempts.push_back(
          {.ref = {.job_id = rows.Text(0), .attempt = rows.Int(1), .token = rows.Text(2)},
           .tenant = rows.Text(8),
           .worker = rows.Text(3),
           .process_id = rows.Int64(7),
           .start_time = absl::FromUnixMicros(rows.Int64(4)),
           .run_timeout =
               rows.IsNull(5) ? absl::InfiniteDuration() : absl::Microseconds(rows.Int64(5)),
           .cancel_requested = rows.Int(6) != 0});
    }
  });
}

absl::StatusOr<QueueLoad> SqliteJobStore::Load() {
  return Read<QueueLoad>([&](Connection& db) -> absl::StatusOr<QueueLoad> {
    QueueLoad load;
    for (const Priority priority : kPrioritiesHighestFirst) load.queued[priority] = 0;
    for (const JobState state : kAllJobStates) load.jobs[state] = 0;
    KINO_ASSIGN_OR_RETURN(Statement rows, db.Query("SELECT state, priority, jobs FROM job_counts"));
    while (true) {
      KINO_ASSIGN_OR_RETURN(const bool has_row, rows.Step());
      if (!has_row) return load;
      const auto state = static_cast<JobState>(rows.Int(0));
      load.jobs[state] += rows.Int64(2);
      if (state == JobState::kQueued) {
        load.queued[static_cast<Priority>(rows.Int(1))] += rows.Int64(2);
      }
    }
  });
}

absl::StatusOr<std::map<std::string, int64_t>> SqliteJobStore::DiskUse() {
  using Bytes = std::map<std::string, int64_t>;
  return Read<Bytes>([&](Connection& db) -> absl::StatusOr<Bytes> {
    Bytes bytes;
    KINO_ASSIGN_OR_RETURN(Statement rows,
                          db.Query("SELECT tenant, bytes FROM disk_use WHERE bytes > 0"));
    while (true) {
      KINO_ASSIGN_OR_RETURN(const bool has_row, rows.Step());
      if (!has_row) return bytes;
      bytes[rows.Text(0)] = rows.Int64(1);
    }
  });
}

absl::StatusOr<std::vector<QueuedJob>> SqliteJobStore::Queue() {
  using Jobs = std::vector<QueuedJob>;
  return Read<Jobs>([&](Connection& db) -> absl::StatusOr<Jobs> {
    const absl::Time farthest = clock_.Now() + 2 * options_.retry.max_backoff;
    Jobs jobs;
    // Class by class, each as the index holds it: nothing is sorted.
    for (const Priority priority : kPrioritiesHighestFirst) {
      KINO_ASSIGN_OR_RETURN(
          Statement rows,
          db.Query(absl::StrCat("SELECT ", kQueuedColumns,
                                " FROM jobs INDEXED BY queue_by_order WHERE state = 1 AND "
                                "priority = ? ORDER BY seq"),
                   static_cast<int>(priority)));
      while (true) {
        KINO_ASSIGN_OR_RETURN(const bool has_row, rows.Step());
        if (!has_row) break;
        jobs.push_back(ReadQueued(rows, 0, farthest));
      }
    }
    return jobs;
  });
}

absl::StatusOr<std::vector<StateEvent>> SqliteJobStore::ReadEvents(const std::string& job_id,
                                                                   int64_t after, int limit) {
  using Events = std::vector<StateEvent>;
  return Read<Events>([&](Connection& db) -> absl::StatusOr<Events> {
    KINO_ASSIGN_OR_RETURN(const JobRow job, LoadRow(db, job_id));
    if (after > job.job.state_number) {
      return absl::OutOfRangeError(absl::StrCat("job '", job_id, "' has state changes up to ",
                                                job.job.state_number, ", asked for those after ",
                                                after));
    }
    KINO_ASSIGN_OR_RETURN(Statement rows,
                          db.Query("SELECT number, state, attempt, time_us, reason FROM events "
                                   "WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
                                   job.seq, after, limit));
    Events events;
    while (true) {
      KINO_ASSIGN_OR_RETURN(const bool has_row, rows.Step());
      if (!has_row) return events;
      events.push_back(ReadEvent(rows, 0));
    }
  });
}

absl::StatusOr<std::vector<Change>> SqliteJobStore::ReadChanges(int64_t after, int limit) {
  using Changes = std::vector<Change>;
  return Read<Changes>([&](Connection& db) -> absl::StatusOr<Changes> {
    KINO_ASSIGN_OR_RETURN(
        Statement rows,
        db.Query(
            absl::StrCat("SELECT events.cursor, number, events.state, events.attempt, time_us, "
                         "reason, jobs.state = 1 AND jobs.state_number = number, ",
                         kQueuedColumns,
                         " FROM events JOIN jobs ON jobs.seq = events.job "
                         "WHERE events.cursor > ? ORDER BY events.cursor LIMIT ?"),
            after, limit));
    const absl::Time farthest = clock_.Now() + 2 * options_.retry.max_backoff;
    Changes changes;
    while (true) {
      KINO_ASSIGN_OR_RETURN(const bool has_row, rows.Step());
      if (!has_row) return changes;
      Change& change = changes.emplace_back();
      change.cursor = rows.Int64(0);
      change.job_id = rows.Text(7);
      change.event = ReadEvent(rows, 1);
      if (rows.Int(6) != 0) change.queued = ReadQueued(rows, 7, farthest);
    }
  });
}

absl::StatusOr<int64_t> SqliteJobStore::LatestCursor() {
  return Read<int64_t>([&](Connection& db) -> absl::StatusOr<int64_t> {
    // From the sequence, not the rows: those of deleted jobs are gone.
    KINO_ASSIGN_OR_RETURN(Statement row,
                          db.Query("SELECT seq FROM sqlite_sequence WHERE name = 'events'"));
    KINO_ASSIGN_OR_RETURN(const bool has_row, row.Step());
    return has_row ? row.Int64(0) : 0;
  });
}

int64_t SqliteJobStore::AddChangeListener(ChangeListener listener) {
  return writer_->AddListener(std::move(listener));
}

void SqliteJobStore::RemoveChangeListener(int64_t id) { writer_->RemoveListener(id); }

absl::StatusOr<Asset> SqliteJobStore::GetAsset(const std::string& tenant,
                                               const std::string& asset_id) {
  return Read<Asset>([&](Connection& db) -> absl::StatusOr<Asset> {
    KINO_ASSIGN_OR_RETURN(
        Statement row,
        db.Query("SELECT id, tenant, bytes, sha256, content_type, width, height, frames, fps, "
                 "create_us, file FROM assets WHERE id = ? AND tenant = ?",
                 asset_id, tenant));
    KINO_ASSIGN_OR_RETURN(const bool is_there, row.Step());
    if (!is_there) return absl::NotFoundError(absl::StrCat("there is no asset '", asset_id, "'"));
    return ReadAsset(row);
  });
}

absl::StatusOr<std::vector<Asset>> SqliteJobStore::ListAssets(const std::string& tenant,
                                                              int limit) {
  using Assets = std::vector<Asset>;
  return Read<Assets>([&](Connection& db) -> absl::StatusOr<Assets> {
    const std::string columns =
        "SELECT id, tenant, bytes, sha256, content_type, width, height, frames, fps, create_us, "
        "file FROM assets ";
    const bool has_tenant = !tenant.empty();
    absl::StatusOr<Statement> rows =
        has_tenant ? db.Query(columns + "WHERE tenant = ? ORDER BY seq DESC LIMIT ?", tenant, limit)
                   : db.Query(columns + "ORDER BY seq DESC LIMIT ?", limit);
    if (!rows.ok()) return rows.status();
    Assets assets;
    while (true) {
      KINO_ASSIGN_OR_RETURN(const bool has_row, rows->Step());
      if (!has_row) return assets;
      assets.push_back(ReadAsset(*rows));
    }
  });
}

absl::StatusOr<std::vector<std::string>> SqliteJobStore::FindLeftOverFiles(
    const std::vector<std::string>& names) {
  using Files = std::vector<std::string>;
  return Read<Files>([&](Connection& db) -> absl::StatusOr<Files> {
    Files left_over;
    for (const std::string& name : names) {
      KINO_ASSIGN_OR_RETURN(Statement row,
                            db.Query("SELECT 1 FROM jobs WHERE artifact_file = ?1 UNION ALL "
                                     "SELECT 1 FROM assets WHERE file = ?1 LIMIT 1",
                                     name));
      KINO_ASSIGN_OR_RETURN(const bool is_named, row.Step());
      if (!is_named) left_over.push_back(name);
    }
    return left_over;
  });
}

}  // namespace kino::scheduler
