// Checks of a request that need no model: fields this server does not know, enum values out of
// their enum, how much every text and every list may hold, and the limits of what the server itself
// acts on (prompt, labels, timeouts, sources of conditions). Free functions.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/describe/request.h"
#include "google/protobuf/message.h"
#include "kino/v1/video.pb.h"
#include "server/config/config.h"

namespace kino::frontend {

// What a job's stored request may take: far below the 4 MiB that a message to a worker may have, so
// that a job which was accepted can always be handed over.
inline constexpr int64_t kMaxStoredRequestBytes = 1 << 20;

// Appends every unknown field, unknown enum value, number that is not finite, and text or list that
// is longer than it may be, at any depth; of very many the first. A request is never run with a
// part of it ignored. False: something passes its bound, and the request is too large to be looked
// into any further.
bool CheckKnown(const google::protobuf::Message& message, const std::string& path,
                std::vector<engine::FieldViolation>& violations);

// The same of an RPC's message around a GenerateRequest, which is left to its own check.
// INVALID_ARGUMENT with the violations.
absl::Status CheckEnvelope(const google::protobuf::Message& message);

void CheckServerFields(const v1::GenerateRequest& request, const config::LimitsConfig& limits,
                       std::vector<engine::FieldViolation>& violations);

// Keeps the first violation of each field, and of all no more than an error can tell; long texts
// are cut.
std::vector<engine::FieldViolation> WithoutRepeats(std::vector<engine::FieldViolation> violations);

}  // namespace kino::frontend
