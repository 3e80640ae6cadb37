// Checks of a GenerateRequest that need no model: fields this server does not know, enum values out
// of their enum, and the limits of what the server itself acts on (prompt, labels, timeouts,
// sources of conditions). Free functions.
#pragma once

#include <string>
#include <vector>

#include "engine/describe/request.h"
#include "google/protobuf/message.h"
#include "kino/v1/video.pb.h"
#include "server/config/config.h"

namespace kino::frontend {

// Appends every unknown field and unknown enum value and every number that is not finite, at any
// depth. A request is never run with a part of it ignored.
void CheckKnown(const google::protobuf::Message& message, const std::string& path,
                std::vector<engine::FieldViolation>& violations);

// The same of an RPC's message around a GenerateRequest, which is left to its own check.
void CheckEnvelope(const google::protobuf::Message& message,
                   std::vector<engine::FieldViolation>& violations);

void CheckServerFields(const v1::GenerateRequest& request, const config::LimitsConfig& limits,
                       std::vector<engine::FieldViolation>& violations);

// Keeps the first violation of each field.
std::vector<engine::FieldViolation> WithoutRepeats(std::vector<engine::FieldViolation> violations);

}  // namespace kino::frontend
