// The pixels of a request's condition, decoded by kino-media and checked against the condition's
// kind. Free functions; each call may block for as long as kino-media takes. Thread-safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/describe/request.h"
#include "engine/engine.h"
#include "server/media/decode_client.h"

namespace kino::convert {

// INVALID_ARGUMENT: broken, of no known kind, or a video where an image belongs (or the other way
// round). Else what media::DecodeMedia says: a limit of `options` is RESOURCE_EXHAUSTED.
absl::StatusOr<engine::MediaInput> DecodeCondition(const std::string& path,
                                                   engine::ConditionKind kind,
                                                   const media::DecodeOptions& options);
absl::StatusOr<engine::MediaInput> DecodeConditionBytes(const std::string& bytes,
                                                        engine::ConditionKind kind,
                                                        const media::DecodeOptions& options);

}  // namespace kino::convert
