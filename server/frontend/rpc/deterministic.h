// Bytes of a message that are equal for equal messages of one build: maps are written in the order
// of their keys.
#pragma once

#include <string>

#include "google/protobuf/message.h"

namespace kino::frontend {

std::string SerializeDeterministically(const google::protobuf::Message& message);

}  // namespace kino::frontend
