// The flags that rendering and planning share: which model, on which device, under which plan. One
// thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "server/command_line/command_line.h"
#include "server/plan/plan_flags.h"

namespace kino::render {

class ModelFlags {
 public:
  // `this` outlives the parsing.
  void Register(CLI::App& app);
  // INVALID_ARGUMENT: a flag is wrong or --model is missing; NOT_FOUND: no such model.
  absl::Status Apply(engine::EngineOptions* engine, engine::ModelOptions* model) const;

 private:
  std::vector<std::string> models_;
  std::string device_ = "cpu", variant_;
  int threads_ = 0;
  engine::ComputeDTypes dtype_;
  bool allow_lossy_ = false;
  plan::PlanFlags plan_;
};

}  // namespace kino::render
