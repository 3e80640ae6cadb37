// Some of everything that a server asks of a store, on a disk that may fail at any call, and the
// proof that what was acknowledged is there.
#pragma once

#include <sqlite3.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/store/sqlite/database.h"
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {

class AckedWork {
 public:
  // Submits, claims, records, commits, fails, forgives, cancels, expires, requeues and, where it
  // `erases`, deletes and purges; goes on behind what is refused. Each request has `request_bytes`.
  // Gives how many operations were refused.
  int Do(JobStore& store, FakeClock& clock, size_t request_bytes, bool erases = true) {
    refused_ = 0;
    NewJob job = MakeJob();
    job.labels = {{"k", "v"}};
    job.request.assign(request_bytes, 'x');
    if (Acked(store.InsertAsset({.id = "a", .tenant = "default", .file_name = "a.png"}))) {
      assets_["a"] = true;
    }
    job.asset_ids = {"a"};
    Submit(store, job);
    job.asset_ids.clear();
    job.request_id = "once";
    const std::string named = Submit(store, job);
    if (!named.empty()) {
      const auto again = store.Submit(job);
      if (Acked(again)) {
        EXPECT_EQ(again->job.id, named);
      }
    }
    job.request_id.clear();
    const std::string cancelled = Submit(store, job), failed = Submit(store, job);
    job.start_timeout = absl::Seconds(5);
    const std::string expired = Submit(store, job);

    // The only one that is old enough to be purged below.
    const absl::Time begin = clock.Now();
    if (!failed.empty()) NoteJob(store.FailQueued(failed, absl::InternalError("x")));
    clock.Advance(absl::Seconds(2));
    Claim(store, [&](const AttemptRef& ref) {
      NoteJob(store.RecordStats(ref, "plan"));
      NoteJob(store.Commit(ref, MakeArtifact("v.mp4"), "stats"));
    });
    Claim(store, [&](const AttemptRef& ref) {
      NoteJob(store.Fail(
          ref, {.cause = FailureCause::kInterrupted, .error = absl::UnavailableError("x")}));
    });
    Claim(store, [&](const AttemptRef& ref) {
      NoteJob(store.Fail(ref, {.cause = FailureCause::kCrash, .error = absl::InternalError("x")}));
      const auto forgiven = store.ForgiveCrashes({ref});
      if (Acked(forgiven) && *forgiven == 1) forgiven_.insert(ref.job_id);
    });
    if (!cancelled.empty()) NoteJob(store.Cancel("default", cancelled));
    clock.Advance(absl::Seconds(10));
    if (!expired.empty()) {
      NoteJob(store.Expire(expired));
      NoteJob(store.Requeue("default", expired));
    }
    Acked(store.List({.tenant = "default", .labels = {{"k", "v"}}}, 2, ""));
    Acked(store.Queue());
    Acked(store.RunningAttempts());
    const auto found = store.FindByRequestId("default", "once");
    if (Acked(found) && !named.empty()) {
      EXPECT_TRUE(found->has_value());
    }
    if (erases && !cancelled.empty()) {
      gone_[cancelled] = Acked(store.Delete("default", cancelled));
      NoteMaybeGone(cancelled);
    }
    const auto files = store.PurgeResults(absl::InfiniteFuture(), 10);
    if (Acked(files) && !files->empty()) has_purged_results_ = true;
    if (erases && !failed.empty()) {
      const auto purged = store.PurgeJobs(begin + absl::Seconds(1), 10);
      gone_[failed] = Acked(purged) && purged->jobs == 1;
      NoteMaybeGone(failed);
    }
    return refused_;
  }

  // How many acknowledgements do not hold.
  int CountLost(JobStore& store) const {
    int lost = 0;
    for (const auto& [id, numbers] : acked_) {
      const auto events = store.ReadEvents(id, 0, 100);
      const auto job = store.GetAnyTenant(id);
      if (!job.ok() || !events.ok()) {
        if (!absl::IsNotFound(job.status()) || !maybe_gone_.contains(id)) ++lost;
        continue;
      }
      const auto gone = gone_.find(id);
      if (gone != gone_.end() && gone->second) ++lost;
      for (const auto& [number, state] : numbers) {
        if (static_cast<int64_t>(events->size()) < number ||
            (*events)[static_cast<size_t>(number) - 1].state != state) {
          ++lost;
        }
      }
      if (static_cast<int64_t>(events->size()) != job->state_number) ++lost;
      // From "" to "plan" to "stats".
      if (job->stats < stats_.at(id)) ++lost;
      if (has_purged_results_ && job->artifact) ++lost;
      if (forgiven_.contains(id) && job->failures.crashes > 0) ++lost;
    }
    for (const auto& [id, is_there] : assets_) {
      if (!store.GetAsset("default", id).ok()) ++lost;
    }
    return lost;
  }

  size_t acknowledged() const { return acked_.size(); }

 private:
  template <typename T>
  bool Acked(const absl::StatusOr<T>& result) {
    if (!result.ok()) ++refused_;
    return result.ok();
  }
  void NoteJob(const absl::StatusOr<Job>& job) {
    if (!Acked(job)) return;
    acked_[job->id][job->state_number] = job->state;
    stats_[job->id] = job->stats;
  }
  // After a removal that was acknowledged, or was the first to be refused: what the power was cut
  // in may have reached the disk, later ones cannot.
  void NoteMaybeGone(const std::string& id) {
    if (gone_[id] || refused_ == 1) maybe_gone_.insert(id);
  }
  std::string Submit(JobStore& store, const NewJob& job) {
    const auto submitted = store.Submit(job);
    if (!Acked(submitted)) return "";
    NoteJob(submitted->job);
    return submitted->job.id;
  }
  void Claim(JobStore& store, const std::function<void(const AttemptRef&)>& use) {
    const auto claim = ClaimNext(store, kWorker);
    if (!Acked(claim) || !claim->has_value()) return;
    NoteJob((*claim)->job);
    use((*claim)->ref);
  }

  // The numbered states that were acknowledged, by job.
  std::map<std::string, std::map<int64_t, JobState>> acked_;
  std::map<std::string, std::string> stats_;
  std::set<std::string> maybe_gone_, forgiven_;
  std::map<std::string, bool> gone_, assets_;
  bool has_purged_results_ = false;
  int refused_ = 0;
};

// What SQLite itself says of a closed file; "ok" where nothing is wrong.
inline std::string FindDamage(const std::string& path) {
  auto db = Connection::Open(path, SQLITE_OPEN_READWRITE, "");
  if (!db.ok()) return db.status().ToString();
  for (const char* check : {"PRAGMA integrity_check(1)", "PRAGMA foreign_key_check"}) {
    auto row = (*db)->PrepareOnce(check);
    if (!row.ok()) return row.status().ToString();
    const auto has_row = row->Step();
    if (!has_row.ok()) return has_row.status().ToString();
    if (*has_row && row->Text(0) != "ok") return absl::StrCat(check, ": ", row->Text(0));
  }
  return "ok";
}

}  // namespace kino::scheduler
