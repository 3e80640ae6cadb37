// The families the engine runs: one line each in registry.cc.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/models/common/pipeline.h"

namespace kino::engine {

// UNIMPLEMENTED: no such family.
absl::StatusOr<std::unique_ptr<Pipeline>> LoadPipeline(const std::string& family,
                                                       const PipelineOptions& options,
                                                       EngineShared& shared);

}  // namespace kino::engine
