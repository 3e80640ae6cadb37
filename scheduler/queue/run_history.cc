#include "scheduler/queue/run_history.h"

#include <algorithm>

namespace kino::scheduler {
namespace {

constexpr double kLatestShare = 1.0 / 3;

template <typename Map>
void ForgetOldest(Map& map) {
  if (map.size() <= kMaxRememberedRuns) return;
  map.erase(std::min_element(map.begin(), map.end(), [](const auto& a, const auto& b) {
    return a.second.learnt < b.second.learnt;
  }));
}

}  // namespace

void RunHistory::Mean::Add(double value) {
  value_ = value_ ? *value_ + kLatestShare * (value - *value_) : value;
}

void RunHistory::Learn(const FinishedRun& run) {
  absl::MutexLock lock(&mutex_);
  ++learnt_;
  Model& model = models_[run.model];
  Shape& shape = shapes_[{run.model, run.work.shape}];
  Setting& setting = settings_[{run.model, run.work.shape, run.setting}];
  shape.learnt = setting.learnt = learnt_;
  double step_seconds = 0, other_seconds = 0;
  for (const FinishedRun::Stage& stage : run.stages) {
    const double seconds = absl::ToDoubleSeconds(stage.time);
    if (stage.stage == kStageLoad) {
      model.load_seconds.Add(seconds);
    } else if (stage.stage == kStageDenoise) {
      step_seconds += seconds;
    } else {
      other_seconds += seconds;
    }
    if (stage.steps <= 0 || stage.usual_step <= absl::ZeroDuration()) continue;
    UsualStep& usual = setting.steps[stage.stage];
    usual.steps = std::min(usual.steps, 1'000'000) + stage.steps;
    usual.time = stage.usual_step;
  }
  const double seconds = step_seconds + other_seconds;
  if (run.work.steps > 0) {
    shape.step_seconds.Add(step_seconds / run.work.steps);
    shape.other_seconds.Add(other_seconds);
  }
  if (run.work.flops > 0 && seconds > 0) {
    model.flops_per_second.Add(run.work.flops / seconds);
    flops_per_second_.Add(run.work.flops / seconds);
  }
  ForgetOldest(shapes_);
  ForgetOldest(settings_);
}

UsualSteps RunHistory::StepsOf(const std::string& model, const std::string& shape,
                               const std::string& setting) const {
  absl::MutexLock lock(&mutex_);
  const auto found = settings_.find({model, shape, setting});
  return found == settings_.end() ? UsualSteps() : found->second.steps;
}

std::optional<absl::Duration> RunHistory::RunTime(const std::string& model,
                                                  const JobWork& work) const {
  if (work.shape.empty()) return std::nullopt;
  absl::MutexLock lock(&mutex_);
  const auto shape = shapes_.find({model, work.shape});
  if (shape != shapes_.end() && shape->second.step_seconds.value()) {
    return absl::Seconds(*shape->second.other_seconds.value() +
                         work.steps * *shape->second.step_seconds.value());
  }
  if (work.flops <= 0) return std::nullopt;
  const auto known = models_.find(model);
  std::optional<double> rate = flops_per_second_.value();
  if (known != models_.end() && known->second.flops_per_second.value())
    rate = known->second.flops_per_second.value();
  if (!rate) return std::nullopt;
  return absl::Seconds(work.flops / *rate);
}

absl::Duration RunHistory::LoadTime(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  const auto found = models_.find(model);
  if (found == models_.end()) return absl::ZeroDuration();
  return absl::Seconds(found->second.load_seconds.value().value_or(0));
}

}  // namespace kino::scheduler
