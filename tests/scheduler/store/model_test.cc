// Random sequences of commands on the store and on the model of its contract (store_model.h), power
// cuts and jumps of the clock among them. A sequence that fails is cut down to the commands that it
// needs and printed.
//
// KINO_MODEL_SEQUENCES says how many are run (1000), KINO_TEST_SEED which is the first.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/scheduler/store/store_fixture.h"
#include "tests/scheduler/store/store_model.h"

namespace kino::scheduler {
namespace {

enum class Kind {
  kSubmit,
  kFindNext,
  kClaim,
  kClaimNext,
  kRecordStats,
  kCommit,
  kFail,
  kCancel,
  kFailQueued,
  kExpire,
  kRequeue,
  kForgiveCrashes,
  kDelete,
  kPurgeResults,
  kPurgeJobs,
  kInsertAsset,
  kDeleteAsset,
  kDeleteUnusedAssets,
  kAdvance,
  kJump,
  kReopen,
  kCutPower,
  kCompare,
};
constexpr const char* kNames[] = {
    "Submit",  "FindNext",     "Claim",      "ClaimNext",   "RecordStats", "Commit",
    "Fail",    "Cancel",       "FailQueued", "Expire",      "Requeue",     "ForgiveCrashes",
    "Delete",  "PurgeResults", "PurgeJobs",  "InsertAsset", "DeleteAsset", "DeleteUnusedAssets",
    "Advance", "Jump",         "Reopen",     "CutPower",    "Compare"};

// Numbers that each command turns into arguments that make sense where it is run: so that it still
// does when others before it are left out.
struct Command {
  Kind kind = Kind::kCompare;
  uint64_t dice = 0;
};

struct Weight {
  Kind kind;
  int usual;
  int troubled;  // few jobs, whose attempts fail again and again
};
constexpr Weight kWeights[] = {
    {Kind::kSubmit, 22, 6},     {Kind::kFindNext, 6, 0},     {Kind::kClaim, 4, 30},
    {Kind::kClaimNext, 18, 4},  {Kind::kRecordStats, 4, 0},  {Kind::kCommit, 8, 1},
    {Kind::kFail, 14, 36},      {Kind::kCancel, 7, 1},       {Kind::kFailQueued, 2, 1},
    {Kind::kExpire, 3, 2},      {Kind::kRequeue, 6, 6},      {Kind::kForgiveCrashes, 6, 12},
    {Kind::kDelete, 3, 0},      {Kind::kPurgeResults, 2, 0}, {Kind::kPurgeJobs, 2, 0},
    {Kind::kInsertAsset, 4, 6}, {Kind::kDeleteAsset, 2, 6},  {Kind::kDeleteUnusedAssets, 1, 1},
    {Kind::kAdvance, 10, 4},    {Kind::kJump, 2, 1},         {Kind::kReopen, 1, 1},
    {Kind::kCutPower, 1, 1},    {Kind::kCompare, 3, 1}};

std::vector<Command> Generate(uint64_t seed) {
  SeededRandom random(seed);
  const bool is_troubled = seed % 3 == 0;
  const auto weight_of = [&](const Weight& weight) {
    return is_troubled ? weight.troubled : weight.usual;
  };
  int total = 0;
  for (const Weight& weight : kWeights) total += weight_of(weight);
  std::vector<Command> commands(10 + random.Next() % 50 + (is_troubled ? 30 : 0));
  for (Command& command : commands) {
    int left = static_cast<int>(random.Next() % static_cast<uint64_t>(total));
    for (const Weight& weight : kWeights) {
      command.kind = weight.kind;
      if ((left -= weight_of(weight)) < 0) break;
    }
    command.dice = random.Next();
  }
  return commands;
}

// One run of one sequence. Says what differs, or "".
class Trial {
 public:
  explicit Trial(uint64_t seed) : random_(seed) {}

  // `blank`: a store's file without jobs, to begin with.
  std::string Do(const std::vector<Command>& commands, const std::string& blank,
                 std::vector<std::string>* told = nullptr) {
    std::filesystem::copy_file(blank, folder_.File("jobs.db"));
    disk_.TrackPower(folder_.File(""));
    if (const std::string wrong = Open(); !wrong.empty()) return wrong;
    for (const Command& command : commands) {
      dice_ = command.dice;
      text_ = kNames[static_cast<int>(command.kind)];
      const std::string wrong = DoOne(command.kind);
      if (told != nullptr) told->push_back(text_);
      if (!wrong.empty()) return absl::StrCat("at ", text_, ": ", wrong);
    }
    const std::string wrong = Compare();
    return wrong.empty() ? "" : absl::StrCat("at the end: ", wrong);
  }

 private:
  std::string Open() {
    auto store = OpenSqliteJobStore(
        {.path = folder_.File("jobs.db"), .vfs = disk_.Vfs(), .max_list_steps = 5, .files = &disk_},
        options_, clock_, random_);
    if (!store.ok()) return store.status().ToString();
    store_ = *std::move(store);
    return "";
  }

  // The next number below `of` from the command's dice.
  uint64_t Throw(uint64_t of) {
    const uint64_t number = dice_ % of;
    dice_ = dice_ / of + 0x9e3779b97f4a7c15ull * (number + 1);
    return number;
  }
  std::string Tenant() { return Throw(4) == 0 ? "b" : "a"; }
  std::string Model() { return Throw(3) == 0 ? "mochi" : "ltx"; }
  // Mostly one that exists.
  std::string JobId() {
    const auto& jobs = model_.jobs();
    if (jobs.empty() || Throw(20) == 0) return "nonsense";
    return std::next(jobs.begin(), static_cast<std::ptrdiff_t>(Throw(jobs.size())))->first;
  }
  // Mostly one that has ended, and its own tenant.
  std::string EndedId() {
    std::vector<std::string> ended;
    for (const auto& [id, job] : model_.jobs()) {
      if (IsTerminal(job.job.state)) ended.push_back(id);
    }
    return ended.empty() || Throw(10) == 0 ? JobId() : ended[Throw(ended.size())];
  }
  std::string TenantOf(const std::string& id) {
    const auto job = model_.jobs().find(id);
    return job == model_.jobs().end() || Throw(10) == 0 ? Tenant() : job->second.job.tenant;
  }
  // Mostly a running attempt; sometimes an old one, or one that is off by a part.
  AttemptRef Ref() {
    std::vector<const ModelJob*> running;
    for (const auto& [id, job] : model_.jobs()) {
      if (job.job.state == JobState::kRunning) running.push_back(&job);
    }
    AttemptRef ref;
    if (running.empty() || Throw(8) == 0) {
      if (old_refs_.empty()) return {.job_id = "nonsense", .attempt = 1, .token = "t"};
      ref = old_refs_[Throw(old_refs_.size())];
    } else {
      const ModelJob& job = *running[Throw(running.size())];
      ref = {.job_id = job.job.id,
             .attempt = static_cast<int>(job.job.attempts.size()),
             .token = job.token};
    }
    if (Throw(20) == 0) ++ref.attempt;
    if (Throw(20) == 0) ref.token = std::string(32, '0');
    text_ += absl::StrCat(" ", ref.job_id, ".", ref.attempt);
    return ref;
  }
  absl::Time Before() { return clock_.Now() - absl::Seconds(static_cast<int64_t>(Throw(120))); }

  static std::string Differ(const absl::Status& got, const absl::Status& want) {
    if (got.code() != want.code()) {
      return absl::StrCat("the store says ", got.ToString(), ", the model ", want.ToString());
    }
    // The model's message is the reason.
    if (!got.ok() && !want.message().empty() && ReasonOf(got) != want.message()) {
      return absl::StrCat("reason ", ReasonOf(got), ", the model ", want.message());
    }
    return "";
  }
  // A job that a write returned, against the model after the same write.
  std::string DifferJob(const absl::StatusOr<Job>& got, const absl::Status& want,
                        const std::string& id) {
    if (std::string wrong = Differ(got.status(), want); !wrong.empty()) return wrong;
    return got.ok() ? DifferJob(*got, id) : "";
  }
  std::string DifferJob(const Job& got, const std::string& id) {
    const auto known = model_.jobs().find(id);
    if (known == model_.jobs().end()) return absl::StrCat("the model has no ", id);
    const std::string seen = Describe(got), want = Describe(known->second.job);
    return seen == want ? "" : absl::StrCat("the store's\n  ", seen, "\nthe model's\n  ", want);
  }

  std::string DoSubmit() {
    NewJob job = MakeJob(Model());
    job.tenant = Tenant();
    job.priority = kPrioritiesHighestFirst[Throw(3)];
    if (Throw(3) == 0) job.request_id = absl::StrCat("request-", Throw(3));
    if (Throw(5) == 0) job.request_fingerprint = "other";
    if (Throw(2) == 0) job.labels["k"] = absl::StrCat(Throw(2));
    if (Throw(3) == 0) job.labels["l"] = "x";
    if (Throw(3) == 0) job.start_timeout = absl::Seconds(1 + static_cast<int64_t>(Throw(30)));
    if (Throw(3) == 0) job.result_ttl = absl::Seconds(static_cast<int64_t>(Throw(60)));
    if (Throw(2) == 0)
      job.work = {.shape = "s", .steps = static_cast<int>(Throw(50)), .flops = 1.5};
    if (Throw(4) == 0)
      job.asset_ids = {absl::StrCat("asset-", Throw(4)), absl::StrCat("asset-", Throw(4))};
    const auto got = store_->Submit(job);
    std::string id;
    const size_t known = model_.jobs().size();
    const absl::Status want = model_.Submit(job, got.ok() ? got->job.id : "?", id);
    text_ += " " + id;
    if (std::string wrong = Differ(got.status(), want); !wrong.empty()) return wrong;
    if (!got.ok()) return "";
    if (got->is_new != (model_.jobs().size() > known)) return "is_new";
    return DifferJob(got->job, id);
  }

  std::string DoFindNext(bool claims) {
    ReadyWorker worker{.name = absl::StrCat("worker-", Throw(2)), .models = {"ltx"}};
    if (Throw(3) != 0) worker.models.insert("mochi");
    for (const auto& [id, job] : model_.jobs()) {
      if (Throw(6) == 0) worker.unfit_jobs.insert(id);
    }
    const auto got = FindNext(*store_, worker, clock_.Now());
    if (!got.ok()) return got.status().ToString();
    const std::optional<std::string> want = model_.FindNext(worker);
    const std::string found = got->has_value() ? (*got)->id : "none";
    text_ += " " + found;
    if (found != want.value_or("none"))
      return absl::StrCat("the model finds ", want.value_or("none"));
    if (!want) return "";
    return claims ? DoClaim(*want, worker.name) : "";
  }

  std::string DoClaim(const std::string& id, const std::string& worker) {
    const absl::Duration start_left = Throw(4) == 0
                                          ? absl::InfiniteDuration()
                                          : absl::Seconds(static_cast<int64_t>(Throw(35)) - 2);
    const auto got = store_->Claim(id, worker, 0, start_left);
    if (!got.ok()) return got.status().ToString();
    const std::string token = got->has_value() ? (*got)->ref.token : "";
    const bool want = model_.Claim(id, worker, start_left, token);
    if (got->has_value() != want) return absl::StrCat("the model says ", want ? "yes" : "no");
    if (!want) return "";
    for (const AttemptRef& old : old_refs_) {
      if (old.token == token) return "the token was used before";
    }
    old_refs_.push_back((*got)->ref);
    if ((*got)->ref.attempt != static_cast<int>((*got)->job.attempts.size())) return "number";
    return DifferJob((*got)->job, id);
  }

  std::string DoFail() {
    const AttemptRef ref = Ref();
    constexpr FailureCause kCauses[] = {
        FailureCause::kClient,      FailureCause::kOutOfMemory, FailureCause::kModel,
        FailureCause::kInternal,    FailureCause::kInternal,    FailureCause::kInterrupted,
        FailureCause::kInterrupted, FailureCause::kCrash,       FailureCause::kHang,
        FailureCause::kLeaseLost,   FailureCause::kLeaseLost,   FailureCause::kCancelled,
        FailureCause::kRunTimeout,  FailureCause::kCrash,       FailureCause::kDiskFull,
        FailureCause::kDeviceLost,  FailureCause::kDeviceLost,  FailureCause::kUncleanStop,
        FailureCause::kUncleanStop};
    constexpr FailureCause kDeaths[] = {FailureCause::kCrash, FailureCause::kHang,
                                        FailureCause::kDeviceLost, FailureCause::kUncleanStop};
    const bool is_death = Throw(3) == 0;
    AttemptFailure failure{
        .cause = is_death ? kDeaths[Throw(std::size(kDeaths))] : kCauses[Throw(std::size(kCauses))],
        .error = absl::InternalError(absl::StrCat("broke ", Throw(3)))};
    if (Throw(3) == 0) failure.stats = "partial";
    if (Throw(3) == 0) failure.evidence = absl::StrCat("signal ", Throw(32));
    text_ += absl::StrCat(" ", FailureCauseName(failure.cause));
    auto got = store_->Fail(ref, failure);
    // The store keeps microseconds.
    std::optional<absl::Time> not_before;
    if (got.ok() && got->retry_not_before) {
      not_before = absl::FromUnixMicros(absl::ToUnixMicros(*got->retry_not_before));
    }
    const absl::Status want = model_.Fail(ref, failure, not_before);
    return DifferJob(got, want, ref.job_id);
  }

  // Mostly crashes, some of them twice.
  std::string DoForgiveCrashes() {
    std::vector<AttemptRef> crashes, refs;
    for (const AttemptRef& ref : old_refs_) {
      const auto job = model_.jobs().find(ref.job_id);
      if (job == model_.jobs().end()) continue;
      const FailureCause cause =
          job->second.job.attempts[static_cast<size_t>(ref.attempt) - 1].cause;
      if (CountFailure({}, cause).crashes > 0) crashes.push_back(ref);
    }
    for (uint64_t count = Throw(4); count > 0; --count) {
      const std::vector<AttemptRef>& from = crashes.empty() || Throw(6) == 0 ? old_refs_ : crashes;
      if (from.empty()) continue;
      AttemptRef& ref = refs.emplace_back(from[Throw(from.size())]);
      if (Throw(20) == 0) ref.attempt += static_cast<int>(Throw(3)) - 1;
      if (Throw(20) == 0) ref.token = std::string(32, '0');
      text_ += absl::StrCat(" ", ref.job_id, ".", ref.attempt);
    }
    const auto got = store_->ForgiveCrashes(refs);
    if (!got.ok()) return got.status().ToString();
    const int want = model_.ForgiveCrashes(refs);
    if (*got != want) return absl::StrCat("the store forgives ", *got, ", the model ", want);
    for (const AttemptRef& ref : refs) {
      if (!model_.jobs().contains(ref.job_id)) continue;
      const auto job = store_->GetAnyTenant(ref.job_id);
      if (std::string wrong = DifferJob(job, absl::OkStatus(), ref.job_id); !wrong.empty()) {
        return wrong;
      }
    }
    return "";
  }

  // The queue as it is read, against the model's; the numbers of its order may be others.
  std::string CompareQueue() {
    const auto got = store_->Queue();
    if (!got.ok()) return got.status().ToString();
    const std::vector<QueuedJob> want = model_.Queue();
    std::vector<std::string> seen, wanted;
    std::map<int64_t, std::string> orders, wanted_orders;
    for (const QueuedJob& job : *got) {
      seen.push_back(Describe(job));
      orders[job.order] = job.id;
    }
    for (const QueuedJob& job : want) {
      wanted.push_back(Describe(job));
      wanted_orders[job.order] = job.id;
    }
    if (seen != wanted) {
      return absl::StrCat("the store's queue\n  ", absl::StrJoin(seen, "\n  "), "\nthe model's\n  ",
                          absl::StrJoin(wanted, "\n  "));
    }
    const bool is_same =
        std::equal(orders.begin(), orders.end(), wanted_orders.begin(), wanted_orders.end(),
                   [](const auto& a, const auto& b) { return a.second == b.second; });
    return is_same ? "" : "the orders of the queue";
  }

  std::string DoOne(Kind kind) {
    switch (kind) {
      case Kind::kSubmit:
        return DoSubmit();
      case Kind::kFindNext:
        return DoFindNext(false);
      case Kind::kClaimNext:
        return DoFindNext(true);
      case Kind::kClaim: {
        const std::string id = JobId();
        text_ += " " + id;
        return DoClaim(id, "worker-9");
      }
      case Kind::kRecordStats: {
        const AttemptRef ref = Ref();
        const std::string stats = Throw(3) == 0 ? "" : absl::StrCat("stats ", Throw(9));
        const auto got = store_->RecordStats(ref, stats);
        return DifferJob(got, model_.RecordStats(ref, stats), ref.job_id);
      }
      case Kind::kCommit: {
        const AttemptRef ref = Ref();
        Artifact artifact = MakeArtifact(absl::StrCat(ref.job_id, ".", ref.attempt));
        artifact.size_bytes = static_cast<int64_t>(Throw(1000));
        files_.insert(artifact.file_name);
        const std::string stats = Throw(2) == 0 ? "" : "end";
        const auto got = store_->Commit(ref, artifact, stats);
        return DifferJob(got, model_.Commit(ref, artifact, stats), ref.job_id);
      }
      case Kind::kFail:
        return DoFail();
      case Kind::kCancel: {
        const std::string id = JobId(), tenant = Tenant();
        text_ += absl::StrCat(" ", tenant, " ", id);
        const auto got = store_->Cancel(tenant, id);
        return DifferJob(got, model_.Cancel(tenant, id), id);
      }
      case Kind::kFailQueued: {
        const std::string id = JobId();
        text_ += " " + id;
        const absl::Status error =
            WithReason(absl::FailedPreconditionError("too large"), kReasonDoesNotFit);
        const auto got = store_->FailQueued(id, error);
        return DifferJob(got, model_.FailQueued(id, error), id);
      }
      case Kind::kExpire: {
        const std::string id = JobId();
        text_ += " " + id;
        const auto got = store_->Expire(id);
        return DifferJob(got, model_.Expire(id), id);
      }
      case Kind::kRequeue: {
        const std::string id = EndedId(), tenant = TenantOf(id);
        text_ += absl::StrCat(" ", tenant, " ", id);
        const auto got = store_->Requeue(tenant, id);
        return DifferJob(got, model_.Requeue(tenant, id), id);
      }
      case Kind::kForgiveCrashes:
        return DoForgiveCrashes();
      case Kind::kDelete: {
        const std::string id = JobId(), tenant = Tenant();
        text_ += absl::StrCat(" ", tenant, " ", id);
        const auto got = store_->Delete(tenant, id);
        std::string file;
        const absl::Status want = model_.Delete(tenant, id, file);
        if (std::string wrong = Differ(got.status(), want); !wrong.empty()) return wrong;
        return !got.ok() || *got == file ? "" : absl::StrCat("file ", *got);
      }
      case Kind::kPurgeResults: {
        const absl::Time before = Before();
        const int limit = 1 + static_cast<int>(Throw(4));
        const auto got = store_->PurgeResults(before, limit);
        if (!got.ok()) return got.status().ToString();
        return model_.PurgeResults(before, limit, *got) ? "" : absl::StrJoin(*got, " ");
      }
      case Kind::kPurgeJobs: {
        const absl::Time before = Before();
        const int limit = 1 + static_cast<int>(Throw(4));
        const auto got = store_->PurgeJobs(before, limit);
        if (!got.ok()) return got.status().ToString();
        std::set<std::string> gone;
        for (const auto& [id, job] : model_.jobs()) {
          if (absl::IsNotFound(store_->GetAnyTenant(id).status())) gone.insert(id);
        }
        const bool is_right = model_.PurgeJobs(before, limit, gone, *got);
        return is_right ? "" : absl::StrCat(got->jobs, " gone: ", absl::StrJoin(gone, " "));
      }
      case Kind::kInsertAsset: {
        Asset asset{.id = absl::StrCat("asset-", Throw(4)), .tenant = Tenant(), .size_bytes = 5};
        asset.file_name = asset.id + ".png";
        files_.insert(asset.file_name);
        const auto got = store_->InsertAsset(asset);
        return Differ(got.status(), model_.InsertAsset(asset));
      }
      case Kind::kDeleteAsset: {
        const std::string id = absl::StrCat("asset-", Throw(4)), tenant = Tenant();
        const auto got = store_->DeleteAsset(tenant, id);
        std::string file;
        const absl::Status want = model_.DeleteAsset(tenant, id, file);
        if (std::string wrong = Differ(got.status(), want); !wrong.empty()) return wrong;
        return !got.ok() || *got == file ? "" : absl::StrCat("file ", *got);
      }
      case Kind::kDeleteUnusedAssets: {
        const absl::Time before = Before();
        const int limit = 1 + static_cast<int>(Throw(3));
        const auto got = store_->DeleteUnusedAssets(before, limit);
        if (!got.ok()) return got.status().ToString();
        return model_.DeleteUnusedAssets(before, limit, *got) ? "" : absl::StrJoin(*got, " ");
      }
      case Kind::kAdvance:
        clock_.Advance(absl::Milliseconds(200 * static_cast<int64_t>(1 + Throw(100))));
        return "";
      case Kind::kJump:
        clock_.JumpWall(absl::Hours(static_cast<int64_t>(Throw(2000)) - 1000));
        return "";
      case Kind::kReopen: {
        store_.reset();
        std::string wrong = Open();
        return wrong.empty() ? Compare() : wrong;
      }
      case Kind::kCutPower: {
        disk_.CutPowerAfter(0);
        store_.reset();
        disk_.Restore(Survival::kSome, random_);
        std::string wrong = Open();
        return wrong.empty() ? Compare() : wrong;
      }
      case Kind::kCompare:
        return Compare();
    }
    return "";
  }

  // Everything that can be read.
  std::string Compare() {
    std::map<JobState, int64_t> states;
    std::map<Priority, int64_t> queued;
    size_t events = 0, running = 0;
    for (const auto& [id, job] : model_.jobs()) {
      ++states[job.job.state];
      if (job.job.state == JobState::kQueued) ++queued[job.job.priority];
      if (job.job.state == JobState::kRunning) ++running;
      const auto got = store_->Get(job.job.tenant, id);
      if (!got.ok()) return got.status().ToString();
      if (std::string wrong = DifferJob(*got, id); !wrong.empty()) return wrong;
      const auto read = store_->ReadEvents(id, 0, 1000);
      if (!read.ok()) return read.status().ToString();
      if (read->size() != job.events.size()) return absl::StrCat(id, " has other events");
      for (size_t i = 0; i < read->size(); ++i) {
        const StateEvent &a = (*read)[i], &b = job.events[i];
        if (a.number != b.number || a.state != b.state || a.attempt != b.attempt ||
            a.time != b.time || a.reason != b.reason) {
          return absl::StrCat(id, ": event ", i + 1, " differs: ", a.reason, ", ", b.reason);
        }
      }
      events += read->size();
    }
    const std::vector<JobFilter> filters = {
        {},
        {.tenant = "a"},
        {.states = {JobState::kQueued, JobState::kFailed}},
        {.tenant = "a", .states = {JobState::kRunning}, .model = "ltx"},
        {.model = "mochi"},
        {.tenant = "a", .labels = {{"k", "1"}}},
        {.tenant = "a", .model = "ltx", .labels = {{"k", "0"}, {"l", "x"}}},
        {.labels = {{"l", "x"}}}};
    for (size_t i = 0; i < filters.size(); ++i) {
      std::vector<std::string> ids;
      std::string token;
      do {
        const auto page = store_->List(filters[i], 3, token);
        if (!page.ok()) return page.status().ToString();
        for (const Job& job : page->jobs) ids.push_back(job.id);
        token = page->next_page_token;
      } while (!token.empty());
      if (ids != model_.List(filters[i])) {
        return absl::StrCat("list ", i, ": ", absl::StrJoin(ids, " "));
      }
    }
    const auto load = store_->Load();
    if (!load.ok()) return load.status().ToString();
    for (const auto& [state, count] : load->jobs) {
      if (count != states[state]) return absl::StrCat(count, " jobs are ", JobStateName(state));
    }
    for (const auto& [priority, count] : load->queued) {
      if (count != queued[priority]) return absl::StrCat(count, " of ", PriorityName(priority));
    }
    const auto use = store_->DiskUse();
    if (!use.ok()) return use.status().ToString();
    if (*use != model_.DiskUse()) return "bytes of the tenants' files";
    if (std::string wrong = CompareQueue(); !wrong.empty()) return wrong;
    for (const char* tenant : {"a", "b"}) {
      for (const char* request_id : {"", "request-0", "request-1", "request-2"}) {
        const auto found = store_->FindByRequestId(tenant, request_id);
        if (!found.ok()) return found.status().ToString();
        const std::string id = found->has_value() ? (*found)->id : "none";
        if (id != model_.FindByRequestId(tenant, request_id).value_or("none")) {
          return absl::StrCat(tenant, "'s '", request_id, "' is ", id);
        }
      }
    }
    const auto changes = store_->ReadChanges(0, 100'000);
    if (!changes.ok() || changes->size() != events) return "changes";
    for (size_t i = 1; i < changes->size(); ++i) {
      if ((*changes)[i].cursor <= (*changes)[i - 1].cursor) return "a cursor falls";
    }
    for (const Change& change : *changes) {
      const ModelJob& job = model_.jobs().at(change.job_id);
      const bool is_last = job.job.state_number == change.event.number;
      if (change.queued.has_value() != (is_last && job.job.state == JobState::kQueued)) {
        return absl::StrCat("what is queued of ", change.job_id);
      }
    }
    const int64_t cursor = *store_->LatestCursor();
    if (cursor < last_cursor_ || (!changes->empty() && cursor < changes->back().cursor)) {
      return "the latest cursor falls";
    }
    last_cursor_ = cursor;
    const auto attempts = store_->RunningAttempts();
    if (!attempts.ok() || attempts->size() != running) return "running attempts";
    for (const RunningAttempt& attempt : *attempts) {
      if (!model_.CheckAttempt(attempt.ref).ok()) return "an attempt runs that does not";
      const Job& job = model_.jobs().at(attempt.ref.job_id).job;
      if (attempt.worker != job.attempts.back().worker ||
          attempt.start_time != job.attempts.back().start_time ||
          attempt.run_timeout != job.run_timeout ||
          attempt.cancel_requested != job.cancel_requested) {
        return absl::StrCat("the running attempt of ", job.id);
      }
    }
    for (const AttemptRef& ref : old_refs_) {
      std::string wrong = Differ(store_->CheckAttempt(ref), model_.CheckAttempt(ref));
      if (!wrong.empty()) return wrong;
    }
    const std::vector<std::string> names(files_.begin(), files_.end());
    const std::set<std::string> live = model_.LiveFiles();
    std::vector<std::string> left_over;
    for (const std::string& name : names) {
      if (!live.contains(name)) left_over.push_back(name);
    }
    const auto found = store_->FindLeftOverFiles(names);
    if (!found.ok() || *found != left_over) return "files that are left over";
    const auto assets = store_->ListAssets("", 100);
    if (!assets.ok() || assets->size() != model_.assets().size()) return "assets";
    return "";
  }

  ScratchFolder folder_;
  SimulatedDisk disk_;
  FakeClock clock_;
  SeededRandom random_;
  const StoreOptions options_{.retry = {.max_unclean_stops = 2},
                              .admission = {.max_queued_jobs = 8}};
  StoreModel model_{options_, clock_};
  std::unique_ptr<JobStore> store_;
  std::vector<AttemptRef> old_refs_;
  std::set<std::string> files_;  // names that a row has or had
  int64_t last_cursor_ = 0;
  uint64_t dice_ = 0;
  std::string text_;
};

// Leaves out commands, ever fewer at a time, as long as it still fails.
std::vector<Command> Shrink(std::vector<Command> commands,
                            const std::function<bool(const std::vector<Command>&)>& fails) {
  for (size_t size = commands.size() / 2; size > 0; size /= 2) {
    for (size_t begin = 0; begin + size <= commands.size();) {
      std::vector<Command> fewer = commands;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(begin),
                  fewer.begin() + static_cast<std::ptrdiff_t>(begin + size));
      if (fails(fewer)) {
        commands = std::move(fewer);
      } else {
        begin += size;
      }
    }
  }
  return commands;
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

TEST(ModelTest, StoreDoesWhatItsContractSays) {
  ScratchFolder folder;
  const std::string blank = folder.File("jobs.db");
  {
    FakeClock clock;
    SeededRandom random(1);
    absl::Notification checked;
    StoreOptions options;
    options.checked = [&](const absl::Status&) { checked.Notify(); };
    const auto store = OpenSqliteJobStore({.path = blank}, options, clock, random);
    ASSERT_TRUE(store.ok()) << store.status();
    checked.WaitForNotification();  // so that its file is marked as closed
  }
  const uint64_t sequences = FromEnvironment("KINO_MODEL_SEQUENCES", 1000);
  const uint64_t first = FromEnvironment("KINO_TEST_SEED", std::random_device{}());
  std::cout << "seed " << first << ", " << sequences << " sequences" << std::endl;
  for (uint64_t seed = first; seed < first + sequences; ++seed) {
    const std::vector<Command> commands = Generate(seed);
    if (Trial(seed).Do(commands, blank).empty()) continue;
    const std::vector<Command> fewer = Shrink(commands, [&](const std::vector<Command>& some) {
      return !Trial(seed).Do(some, blank).empty();
    });
    std::vector<std::string> told;
    const std::string wrong = Trial(seed).Do(fewer, blank, &told);
    FAIL() << "KINO_TEST_SEED=" << seed << " KINO_MODEL_SEQUENCES=1\n"
           << absl::StrJoin(told, "\n") << "\n"
           << wrong;
  }
}

TEST(ModelTest, FailingSequencesAreCutDown) {
  std::vector<Command> commands(40);
  commands[7].dice = 1;
  commands[31].dice = 2;
  const std::vector<Command> fewer = Shrink(commands, [](const std::vector<Command>& some) {
    bool has_one = false, fails = false;
    for (const Command& command : some) {
      has_one |= command.dice == 1;
      fails |= has_one && command.dice == 2;
    }
    return fails;
  });
  ASSERT_EQ(fewer.size(), 2u);
  EXPECT_EQ(fewer[0].dice, 1u);
  EXPECT_EQ(fewer[1].dice, 2u);
}

}  // namespace
}  // namespace kino::scheduler
