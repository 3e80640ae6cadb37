// What a run tells of itself, as the API's messages: stages, progress, statistics, the artifact.
// Free functions over values; thread-safe. Includes the engine's public door, links nothing of it.
#pragma once

#include <cstdint>
#include <string>

#include "engine/engine.h"
#include "kino/v1/video.pb.h"

namespace kino::convert {

v1::Stage FromEngine(engine::Stage stage);
v1::StageStats FromEngine(const engine::StageStats& stats);
v1::Progress FromEngine(const engine::RunProgress& progress, int attempt);

// The MP4 of a finished run. `size_bytes` and `sha256` are those of the bytes sent, not the
// engine's count.
v1::Artifact ToArtifact(const engine::RunResult& result, int64_t size_bytes, std::string sha256);

}  // namespace kino::convert
