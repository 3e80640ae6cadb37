#include "server/frontend/link/finished_run.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kino::frontend {
namespace {

// Of each model, the latest. Older ones say little more.
constexpr int kRunsToLearnFrom = 200;
constexpr int64_t kBytesToLearnFrom = 8 << 20;

}  // namespace

std::string SettingOf(const v1::Plan& plan, const std::string& device_name) {
  return absl::StrCat(plan.SerializeAsString(), "\n", device_name);
}

scheduler::FinishedRun FinishedRunOf(const std::string& model, const scheduler::JobWork& work,
                                     const v1::RunStats& stats) {
  scheduler::FinishedRun run{.model = model,
                             .work = work,
                             .setting = SettingOf(stats.plan(), stats.receipt().device_name())};
  for (const v1::StageStats& stage : stats.stages()) {
    run.stages.push_back({.stage = stage.stage(),
                          .time = absl::Seconds(stage.seconds()),
                          .steps = stage.steps(),
                          .usual_step = absl::Seconds(stage.step_seconds())});
  }
  return run;
}

absl::Status LearnFromStore(scheduler::JobStore& store, const std::set<std::string>& models,
                            scheduler::RunHistory& history) {
  for (const std::string& model : models) {
    const scheduler::JobFilter filter{
        .tenant = "", .states = {scheduler::JobState::kSucceeded}, .model = model, .labels = {}};
    const absl::StatusOr<scheduler::JobPage> page =
        store.List(filter, kRunsToLearnFrom, "", kBytesToLearnFrom);
    if (!page.ok()) return page.status();
    // Newest first: the latest is to count most.
    for (auto job = page->jobs.rbegin(); job != page->jobs.rend(); ++job) {
      v1::RunStats stats;
      if (stats.ParseFromString(job->stats)) history.Learn(FinishedRunOf(model, job->work, stats));
    }
  }
  return absl::OkStatus();
}

}  // namespace kino::frontend
