#include "engine/models/common/stage_weights.h"

#include <algorithm>

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

bool Uses(const PipelineComponent& component, Stage stage) {
  return std::find(component.stages.begin(), component.stages.end(), stage) !=
         component.stages.end();
}

}  // namespace

StageWeights::StageWeights(std::shared_ptr<Pipeline> pipeline, const Plan& plan)
    : pipeline_(std::move(pipeline)), plan_(plan) {}

StageWeights::~StageWeights() {
  for (const PipelineComponent& each : pipeline_->components()) each.component->residency().Leave();
}

void StageWeights::Approach(Stage stage) {
  for (const PipelineComponent& each : pipeline_->components()) {
    if (!Uses(each, stage)) each.component->residency().Leave();
    each.component->residency().MakeWay(PlanOf(each));
  }
}

WeightPlan StageWeights::PlanOf(const PipelineComponent& component) const {
  const absl::StatusOr<WeightPlan> plan =
      WeightPlanOf(plan_, component.name, component.is_autoencoder);
  ThrowIfError(plan.status());
  return *plan;
}

void StageWeights::Enter(Stage stage, std::optional<Stage> next, const RunContext& context) {
  // Another run may have been there in between.
  Approach(stage);
  for (const PipelineComponent& each : pipeline_->components()) {
    each.component->residency().Configure(PlanOf(each), context);
  }
  if (entered_ == stage) return;
  entered_ = stage;
  if (!next) return;
  for (const PipelineComponent& each : pipeline_->components()) {
    if (Uses(each, *next) && !Uses(each, stage)) each.component->residency().Announce();
  }
}

}  // namespace kino::engine
