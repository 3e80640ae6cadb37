#include "server/frontend/rpc/fit_judge.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kino/v1/video.pb.h"
#include "server/convert/request.h"
#include "server/frontend/rpc/placement.h"

namespace kino::frontend {
namespace {

using scheduler::Fit;
using scheduler::Verdict;

// A worker traces the largest models in less than a second, and answers one question at a time.
constexpr absl::Duration kProfileWait = absl::Seconds(10);

// What the named workers may take, by what the configuration and they themselves say.
std::vector<Target> TargetsOf(const std::set<std::string>& names,
                              const std::vector<config::WorkerConfig>& configured,
                              const std::vector<WorkerMemory>& known) {
  std::vector<config::WorkerConfig> some_configured;
  for (const config::WorkerConfig& worker : configured) {
    if (names.contains(worker.name)) some_configured.push_back(worker);
  }
  std::vector<WorkerMemory> some_known;
  for (const WorkerMemory& memory : known) {
    if (names.contains(memory.worker)) some_known.push_back(memory);
  }
  return Targets(some_configured, some_known);
}

}  // namespace

FitJudge::FitJudge(const config::Config& config, scheduler::JobStore& store, const Catalog& catalog,
                   Profiles& profiles, const WorkerLink& link)
    : config_(config), store_(store), catalog_(catalog), profiles_(profiles), link_(link) {}

void FitJudge::Ask(const scheduler::Reservation& reservation, const scheduler::QueuedJob& job,
                   std::function<void(Verdict)> done) {
  thread_.Post([this, worker = reservation.worker.name, id = job.id, done = std::move(done)] {
    const absl::StatusOr<scheduler::Job> whole = store_.GetAnyTenant(id);
    // One that cannot be read now may be claimed: the claim finds out.
    done(whole.ok() ? Judge(worker, whole->model, whole->request) : Verdict());
  });
}

Verdict FitJudge::Judge(const std::string& worker, const std::string& model,
                        const std::string& request) {
  const CatalogEntry* entry = catalog_.Find(model);
  v1::GenerateRequest message;
  if (entry == nullptr || !entry->description.ok() || !message.ParseFromString(request)) return {};
  const convert::EngineRequest converted = convert::ToEngine(message);
  if (!converted.violations.empty()) return {};

  std::set<std::string> up, others;
  for (const scheduler::WorkerSnapshot& snapshot : link_.Workers()) {
    const bool serves_it =
        std::any_of(snapshot.models.begin(), snapshot.models.end(),
                    [&](const scheduler::WorkerModel& each) { return each.name == model; });
    if (snapshot.session == 0 || !serves_it) continue;
    up.insert(snapshot.name);
    if (snapshot.name != worker) others.insert(snapshot.name);
  }
  const std::set<std::string> absent = link_.Absent();
  others.insert(absent.begin(), absent.end());
  const std::vector<WorkerMemory> known = link_.Memories();
  // Of no tenant: what the queue asks must not wait for what tenants ask.
  const Asker asker{.profiles = profiles_, .tenant = "", .deadline = absl::Now() + kProfileWait};
  const auto fits = [&](const std::set<std::string>& names) {
    const std::vector<Target> targets = TargetsOf(names, config_.workers, known);
    return !targets.empty() && CheckFits(*entry, converted.request, targets, asker).ok();
  };

  up.insert(worker);
  if (fits({worker})) return {.fit = Fit::kHere, .error = {}};
  if (fits(others)) return {.fit = Fit::kElsewhere, .error = {}};
  const absl::Status error =
      CheckFits(*entry, converted.request, TargetsOf(up, config_.workers, known), asker).status();
  if (error.ok()) return {};  // cannot be told any more
  return {.fit = Fit::kNowhere, .error = error};
}

}  // namespace kino::frontend
