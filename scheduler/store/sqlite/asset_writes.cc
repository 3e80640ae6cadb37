// The writes on assets.
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/sqlite_job_store.h"

namespace kino::scheduler {

namespace {

// An asset is in use while a QUEUED or RUNNING job names it.
constexpr char kUsers[] =
    "SELECT jobs.id FROM job_assets JOIN jobs ON jobs.seq = job_assets.job "
    "WHERE job_assets.asset = ? AND jobs.state IN (1, 2) LIMIT 1";

}  // namespace

void SqliteJobStore::InsertAsset(Asset asset, Done<Asset> done) {
  Write<Asset>(
      From::kClient, std::move(done),
      [this, asset = std::move(asset)](Transaction& transaction) -> absl::StatusOr<Asset> {
        if (asset.id.empty() || asset.tenant.empty() || asset.file_name.empty()) {
          return absl::InvalidArgumentError("an asset needs an id, a tenant and a file name");
        }
        Connection& db = transaction.db;
        {
          KINO_ASSIGN_OR_RETURN(Statement row,
                                db.Query("SELECT 1 FROM assets WHERE id = ?", asset.id));
          KINO_ASSIGN_OR_RETURN(const bool is_there, row.Step());
          if (is_there) {
            return absl::AlreadyExistsError(absl::StrCat("there is an asset '", asset.id, "'"));
          }
        }
        const int64_t now_us = SaturatingMicros(clock_.Now());
        KINO_RETURN_IF_ERROR(
            db.Run("INSERT INTO assets(id, tenant, bytes, sha256, content_type, width, height, "
                   "frames, fps, create_us, file) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   asset.id, asset.tenant, asset.size_bytes, asset.sha256, asset.content_type,
                   asset.width, asset.height, asset.num_frames, asset.fps, now_us, asset.file_name)
                .status());
        Asset made = asset;
        made.create_time = absl::FromUnixMicros(now_us);
        return made;
      });
}

void SqliteJobStore::DeleteAsset(std::string tenant, std::string asset_id, Done<std::string> done) {
  Write<std::string>(
      From::kClient, std::move(done),
      [tenant = std::move(tenant),
       asset_id = std::move(asset_id)](Transaction& transaction) -> absl::StatusOr<std::string> {
        Connection& db = transaction.db;
        std::string file;
        {
          KINO_ASSIGN_OR_RETURN(
              Statement row,
              db.Query("SELECT file FROM assets WHERE id = ? AND tenant = ?", asset_id, tenant));
          KINO_ASSIGN_OR_RETURN(const bool is_there, row.Step());
          if (!is_there) {
            return absl::NotFoundError(absl::StrCat("there is no asset '", asset_id, "'"));
          }
          file = row.Text(0);
        }
        {
          KINO_ASSIGN_OR_RETURN(Statement user, db.Query(kUsers, asset_id));
          KINO_ASSIGN_OR_RETURN(const bool is_used, user.Step());
          if (is_used) {
            return WithReason(absl::FailedPreconditionError(absl::StrCat(
                                  "asset '", asset_id, "' is used by job '", user.Text(0), "'")),
                              kReasonAssetInUse);
          }
        }
        KINO_RETURN_IF_ERROR(db.Run("DELETE FROM assets WHERE id = ?", asset_id).status());
        return file;
      });
}

void SqliteJobStore::DeleteUnusedAssets(absl::Time created_before, int limit,
                                        Done<std::vector<std::string>> done) {
  using Files = std::vector<std::string>;
  Write<Files>(
      From::kServer, std::move(done),
      [created_before, limit](Transaction& transaction) -> absl::StatusOr<Files> {
        absl::StatusOr<Statement> removed = transaction.db.Query(
            "DELETE FROM assets WHERE seq IN (SELECT seq FROM assets WHERE create_us < ? "
            "AND NOT EXISTS (SELECT 1 FROM job_assets JOIN jobs ON jobs.seq = job_assets.job "
            "WHERE job_assets.asset = assets.id AND jobs.state IN (1, 2)) "
            "ORDER BY create_us LIMIT ?) RETURNING file",
            SaturatingMicros(created_before), limit);
        if (!removed.ok()) return removed.status();
        Files files;
        while (true) {
          KINO_ASSIGN_OR_RETURN(const bool has_row, removed->Step());
          if (!has_row) return files;
          files.push_back(removed->Text(0));
        }
      });
}

}  // namespace kino::scheduler
