// What the link does by the clock: watches the disk's room, fails jobs whose model has gone,
// expires jobs, purges what has aged out, and tells metrics. Belongs to the link's strand and never
// blocks on a write.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/event.h"
#include "scheduler/queue/job_queue.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/dispatcher.h"
#include "server/config/config.h"
#include "server/frontend/artifacts/disk_budget.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/metrics/metrics.h"

namespace kino::frontend {

class Upkeep {
 public:
  // All outlive this.
  struct Parts {
    scheduler::JobStore& store;
    FileStore& files;
    DiskBudget& budget;
    Metrics& metrics;
    const scheduler::Clock& clock;
    scheduler::JobQueue& queue;
    scheduler::Dispatcher& dispatcher;
    scheduler::Dispatcher::Post post;
  };
  // `models`: names of the configured ones.
  Upkeep(Parts parts, std::set<std::string> models, const config::RetentionConfig& retention)
      : parts_(std::move(parts)), models_(std::move(models)), retention_(retention) {}

  // At the start and with every change of the store: a QUEUED job of a model that is not configured
  // (any more) is failed.
  void Look(const scheduler::QueuedJob& job);
  void OnChange(const scheduler::Change& change);

  // What holds claims: for Job.waiting_reason, and in words. Empty: nothing.
  struct Hold {
    std::string waiting_reason;
    std::string words;
  };
  // The server is short of something: claims are held for a while, on a full disk until there is
  // room.
  void OnShortage(const char* waiting_reason, const std::string& words);
  // False: what the last server left running has not ended in the store yet; claims are held.
  void SetTakenOver(bool is_taken_over);
  // Its video may have taken the last room: nothing is claimed before that has been looked at.
  void OnAttemptEnded() { CheckRoom(parts_.clock.Monotonic()); }
  const Hold& hold() const { return hold_; }
  // None of these tenants' jobs is claimed.
  const std::set<std::string>& held_tenants() const { return held_tenants_; }

  // To be called often.
  void Tick();

 private:
  void FailUnknownModels();
  void CheckRoom(absl::Duration now);
  void Purge();
  void Unlink(const std::vector<std::string>& files, void (FileStore::*remove)(const std::string&),
              const char* what);

  const Parts parts_;
  const std::set<std::string> models_;
  const config::RetentionConfig retention_;
  std::map<std::string, std::string> unknown_;  // QUEUED jobs of models that are gone: id, model
  std::set<std::string> asked_;                 // of these, the store has been asked to fail
  bool is_taken_over_ = true;
  Hold shortage_;  // until shortage_end_
  Hold hold_;
  std::set<std::string> held_tenants_;
  absl::Duration shortage_end_;
  absl::Duration next_look_;
  absl::Duration next_purge_;
};

}  // namespace kino::frontend
