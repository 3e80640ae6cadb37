// What age takes away: first a job's result, later the job.
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/sqlite_job_store.h"

namespace kino::scheduler {

void SqliteJobStore::PurgeResults(absl::Time ended_before, int limit,
                                  Done<std::vector<std::string>> done) {
  using Files = std::vector<std::string>;
  Write<Files>(
      From::kServer, std::move(done),
      [this, ended_before, limit](Transaction& transaction) -> absl::StatusOr<Files> {
        Connection& db = transaction.db;
        std::vector<std::string> ids;
        const auto collect = [&](const char* sql, absl::Time before) -> absl::Status {
          KINO_ASSIGN_OR_RETURN(Statement old, db.Query(sql, SaturatingMicros(before),
                                                        limit - static_cast<int>(ids.size())));
          while (true) {
            KINO_ASSIGN_OR_RETURN(const bool has_row, old.Step());
            if (!has_row) return absl::OkStatus();
            ids.push_back(old.Text(0));
          }
        };
        KINO_RETURN_IF_ERROR(
            collect("SELECT id FROM jobs INDEXED BY results_by_expiry WHERE artifact_file IS NOT "
                    "NULL AND expire_us IS NOT NULL AND expire_us <= ? ORDER BY expire_us LIMIT ?",
                    clock_.Now()));
        KINO_RETURN_IF_ERROR(
            collect("SELECT id FROM jobs INDEXED BY results_by_end WHERE artifact_file IS NOT "
                    "NULL AND expire_us IS NULL AND end_us < ? ORDER BY end_us LIMIT ?",
                    ended_before));
        Files files;
        for (const std::string& id : ids) {
          KINO_ASSIGN_OR_RETURN(const JobRow before, LoadRow(db, id));
          JobRow after = before;
          files.push_back(before.job.artifact->file_name);
          after.job.artifact.reset();
          after.job.artifact_purged = true;
          KINO_RETURN_IF_ERROR(UpdateRow(db, before, after));
        }
        return files;
      });
}

void SqliteJobStore::PurgeJobs(absl::Time ended_before, int limit, Done<PurgedJobs> done) {
  Write<PurgedJobs>(
      From::kServer, std::move(done),
      [ended_before, limit](Transaction& transaction) -> absl::StatusOr<PurgedJobs> {
        // Events, attempts, requests and labels go with their job. A job that can still run has no
        // end; the states are asked for all the same.
        KINO_ASSIGN_OR_RETURN(
            Statement removed,
            transaction.db.Query(
                "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs INDEXED BY ended_jobs "
                "WHERE end_us < ? AND state NOT IN (1, 2) ORDER BY end_us LIMIT ?) "
                "RETURNING artifact_file",
                SaturatingMicros(ended_before), limit));
        PurgedJobs purged;
        while (true) {
          KINO_ASSIGN_OR_RETURN(const bool has_row, removed.Step());
          if (!has_row) return purged;
          transaction.has_erased = true;
          ++purged.jobs;
          if (!removed.IsNull(0)) purged.files.push_back(removed.Text(0));
        }
      });
}

}  // namespace kino::scheduler
