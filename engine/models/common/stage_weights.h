// Which components hold weights on the device while a run goes through its stages: those that the
// stage uses. One object per run; runs that take turns configure and bring what they need anew. One
// thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "engine/models/common/pipeline.h"

namespace kino::engine {

class StageWeights {
 public:
  StageWeights(std::shared_ptr<Pipeline> pipeline, const Plan& plan);
  // What other stages use leaves the device.
  ~StageWeights();
  StageWeights(const StageWeights&) = delete;
  StageWeights& operator=(const StageWeights&) = delete;

  // `stage` is next: what it does not use leaves the device, and so does what is held under
  // another plan.
  void Approach(Stage stage);
  // Before each step of `stage`: the plan holds, what the stage does not use has left the device,
  // and what `next`, the stage after it if there is one, uses is being read from the disk. Throws
  // what Residency::Configure throws, CANCELLED by `context` included.
  void Enter(Stage stage, std::optional<Stage> next, const RunContext& context = {});
  // Another plan from here on.
  void set_plan(const Plan& plan) { plan_ = plan; }

 private:
  WeightPlan PlanOf(const PipelineComponent& component) const;

  std::shared_ptr<Pipeline> pipeline_;
  Plan plan_;
  std::optional<Stage> entered_;
};

}  // namespace kino::engine
