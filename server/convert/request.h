// kino.v1.GenerateRequest <-> engine::Request: the one mapping, used by frontend, worker and
// kino-render. Free functions over values; thread-safe. No torch and no gRPC.
#pragma once

#include <vector>

#include "engine/describe/request.h"
#include "kino/v1/models.pb.h"
#include "kino/v1/video.pb.h"

namespace kino::convert {

struct EngineRequest {
  engine::Request request;
  // What the engine's structs cannot represent, or what contradicts itself: unknown enum values,
  // numbers that are not finite, knobs of a family this version does not know or given twice,
  // previews. When it is not empty the request must not run.
  std::vector<engine::FieldViolation> violations;
};

// Takes what the engine acts on. Names, labels, priorities, timeouts and the sources of conditions
// stay in the message; the enum values among them are checked here all the same.
EngineRequest ToEngine(const v1::GenerateRequest& request);

// Writes every field that the engine knows into `out`, and leaves the others as they are.
// Conditions are matched by position and keep their sources.
void FromEngine(const engine::Request& request, v1::GenerateRequest* out);

engine::Plan ToEngine(const v1::Plan& plan);
v1::Plan FromEngine(const engine::Plan& plan);

// TASK_UNSPECIFIED for engine::Task::kUnspecified.
v1::Task FromEngine(engine::Task task);

void FromEngine(const engine::KnobValue& value, v1::KnobValue* out);
void FromEngine(const engine::KnobInfo& knob, v1::KnobInfo* out);

}  // namespace kino::convert
