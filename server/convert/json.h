// The JSON form of the API's messages: protobuf's mapping with the proto's own field names
// (snake_case), bare enum names and 64-bit integers as strings. Free functions over values;
// thread-safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "kino/v1/video.pb.h"

namespace kino::convert {

enum class JsonLayout { kOneLine, kIndented };

// INVALID_ARGUMENT: not JSON, or an unknown field or enum name, which the message names.
absl::StatusOr<v1::GenerateRequest> FromJson(const std::string& text);
// Fields that have no presence and hold their default are left out.
std::string ToJson(const google::protobuf::Message& message, JsonLayout layout);

}  // namespace kino::convert
