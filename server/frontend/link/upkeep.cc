#include "server/frontend/link/upkeep.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kino::frontend {
namespace {

constexpr absl::Duration kLookInterval = absl::Milliseconds(500);
constexpr absl::Duration kMinPurgeInterval = absl::Seconds(1);
constexpr absl::Duration kMaxPurgeInterval = absl::Minutes(1);
constexpr int kPurgeBatch = 500;
// After a failure for want of something, before the next job is tried.
constexpr absl::Duration kShortagePause = absl::Seconds(1);

}  // namespace

void Upkeep::Look(const scheduler::QueuedJob& job) {
  if (models_.contains(job.model)) return;
  unknown_[job.id] = job.model;
}

void Upkeep::OnChange(const scheduler::Change& change) {
  if (change.queued) {
    Look(*change.queued);
    FailUnknownModels();
  } else {
    unknown_.erase(change.job_id);
    asked_.erase(change.job_id);
  }
}

void Upkeep::FailUnknownModels() {
  for (const auto& [id, model] : unknown_) {
    if (!asked_.insert(id).second) continue;
    spdlog::warn("job {}: failed, model '{}' is no longer configured", id, model);
    parts_.store.FailQueued(
        id,
        absl::FailedPreconditionError(absl::StrCat("model '", model, "' is no longer configured")),
        [this, id = id, post = parts_.post](const absl::StatusOr<scheduler::Job>& job) {
          // Its change takes it off the list; what could not be stored is asked again.
          if (!job.ok()) post([this, id] { asked_.erase(id); });
        });
  }
}

void Upkeep::OnShortage(const std::string& reason) {
  spdlog::warn("nothing is started for a while: {}", reason);
  shortage_ = reason;
  shortage_end_ = parts_.clock.Monotonic() + kShortagePause;
  CheckRoom(parts_.clock.Monotonic());
}

void Upkeep::CheckRoom(absl::Duration now) {
  if (shortage_end_ <= now) shortage_.clear();
  std::string hold = shortage_;
  const absl::StatusOr<int64_t> free_bytes = parts_.files.FreeBytes();
  if (free_bytes.ok() && *free_bytes < limits_.min_free_disk_bytes) {
    hold = absl::StrCat("the server's disk is full: ", *free_bytes, " bytes are free, expected ",
                        limits_.min_free_disk_bytes);
  }
  if (hold != parts_.dispatcher.hold()) {
    if (!hold.empty()) spdlog::warn("no job is started: {}", hold);
    if (hold.empty()) spdlog::info("jobs are started again");
  }
  parts_.dispatcher.SetHold(hold);
}

void Upkeep::Purge() {
  const absl::Time now = parts_.clock.Now();
  parts_.store.PurgeResults(
      now - retention_.results, kPurgeBatch,
      [this, post = parts_.post](absl::StatusOr<std::vector<std::string>> files) {
        if (!files.ok()) return;
        post([this, files = *std::move(files)] {
          for (const std::string& file : files) parts_.files.RemoveVideo(file);
          if (!files.empty()) spdlog::info("purged {} results that have aged out", files.size());
        });
      });
  parts_.store.PurgeJobs(now - retention_.jobs, kPurgeBatch,
                         [this, post = parts_.post](absl::StatusOr<scheduler::PurgedJobs> purged) {
                           if (!purged.ok()) return;
                           post([this, purged = *std::move(purged)] {
                             for (const std::string& file : purged.files)
                               parts_.files.RemoveVideo(file);
                             if (purged.jobs > 0)
                               spdlog::info("forgot {} jobs that ended long ago", purged.jobs);
                           });
                         });
  parts_.store.DeleteUnusedAssets(
      now - retention_.assets, kPurgeBatch,
      [this, post = parts_.post](absl::StatusOr<std::vector<std::string>> files) {
        if (!files.ok()) return;
        post([this, files = *std::move(files)] {
          for (const std::string& file : files) parts_.files.RemoveAsset(file);
        });
      });
}

void Upkeep::Tick() {
  const absl::Duration now = parts_.clock.Monotonic();
  for (const std::string& id : parts_.queue.TakeOverdue()) {
    parts_.store.Expire(id, [](const absl::StatusOr<scheduler::Job>&) {});
  }
  if (now >= next_look_) {
    next_look_ = now + kLookInterval;
    CheckRoom(now);
    FailUnknownModels();
    if (const auto load = parts_.store.Load(); load.ok()) parts_.metrics.SetQueue(*load);
  }
  if (now >= next_purge_) {
    const absl::Duration shortest =
        std::min({retention_.results, retention_.assets, retention_.jobs});
    next_purge_ = now + std::clamp(shortest / 10, kMinPurgeInterval, kMaxPurgeInterval);
    Purge();
  }
}

}  // namespace kino::frontend
