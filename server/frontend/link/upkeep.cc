#include "server/frontend/link/upkeep.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/frontend/watch/queue_view.h"

namespace kino::frontend {
namespace {

constexpr absl::Duration kLookInterval = absl::Milliseconds(500);
constexpr absl::Duration kMinPurgeInterval = absl::Seconds(1);
constexpr absl::Duration kMaxPurgeInterval = absl::Seconds(5);
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

void Upkeep::OnShortage(const char* waiting_reason, const std::string& words) {
  spdlog::warn("nothing is started for a while: {}", words);
  shortage_ = {.waiting_reason = waiting_reason, .words = words};
  shortage_end_ = parts_.clock.Monotonic() + kShortagePause;
  CheckRoom(parts_.clock.Monotonic());
}

void Upkeep::SetTakenOver(bool is_taken_over) {
  is_taken_over_ = is_taken_over;
  CheckRoom(parts_.clock.Monotonic());
}

void Upkeep::CheckRoom(absl::Duration now) {
  if (shortage_end_ <= now) shortage_ = {};
  DiskBudget::Shortage disk = parts_.budget.Find();
  Hold hold = shortage_;
  if (!is_taken_over_) {
    hold = {.waiting_reason = kWaitsForServer,
            .words = "what ran when the last server stopped has not ended in the store yet"};
  }
  if (!disk.disk.empty()) hold = {.waiting_reason = kWaitsForDisk, .words = disk.disk};
  if (hold.words.empty() != hold_.words.empty()) {
    if (!hold.words.empty()) spdlog::warn("no job is started: {}", hold.words);
    if (hold.words.empty()) spdlog::info("jobs are started again");
  }
  for (const std::string& tenant : disk.tenants) {
    if (!held_tenants_.contains(tenant))
      spdlog::warn("no job of tenant '{}' is started: it has no more room on the disk", tenant);
  }
  hold_ = std::move(hold);
  held_tenants_ = std::move(disk.tenants);
  parts_.queue.HoldTenants(held_tenants_);
  parts_.dispatcher.SetHold(hold_.words);
}

void Upkeep::Unlink(const std::vector<std::string>& files,
                    void (FileStore::*remove)(const std::string&), const char* what) {
  for (const std::string& file : files) (parts_.files.*remove)(file);
  if (!files.empty()) spdlog::info("removed {} {} that have aged out", files.size(), what);
}

void Upkeep::Purge() {
  const absl::Time now = parts_.clock.Now();
  // Removes on the strand the files that the store has forgotten.
  const auto unlink = [this, post = parts_.post](auto remove, const char* what) {
    return [this, post, remove, what](absl::StatusOr<std::vector<std::string>> files) {
      if (!files.ok()) return;
      post([this, remove, what, files = *std::move(files)] { Unlink(files, remove, what); });
    };
  };
  parts_.store.PurgeResults(now - retention_.results, kPurgeBatch,
                            unlink(&FileStore::RemoveVideo, "results"));
  parts_.store.DeleteUnusedAssets(now - retention_.assets, kPurgeBatch,
                                  unlink(&FileStore::RemoveAsset, "assets"));
  parts_.store.PurgeJobs(now - retention_.jobs, kPurgeBatch,
                         [done = unlink(&FileStore::RemoveVideo, "results")](
                             absl::StatusOr<scheduler::PurgedJobs> purged) {
                           if (!purged.ok()) return;
                           if (purged->jobs > 0)
                             spdlog::info("forgot {} jobs that ended long ago", purged->jobs);
                           done(std::move(purged->files));
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
    if (const auto use = parts_.budget.Measure(); use.ok())
      parts_.metrics.SetDisk(use->free_bytes, use->used_bytes);
    parts_.metrics.SetTenants(parts_.queue.tenants());
  }
  if (now >= next_purge_) {
    const absl::Duration shortest =
        std::min({retention_.results, retention_.assets, retention_.jobs});
    next_purge_ = now + std::clamp(shortest / 10, kMinPurgeInterval, kMaxPurgeInterval);
    Purge();
  }
}

}  // namespace kino::frontend
