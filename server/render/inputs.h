// What kino-render reads: the request file and the files its conditions name. Free functions; no
// state.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "kino/v1/video.pb.h"

namespace kino::render {

// The file's GenerateRequest, or standard input's for "-". INVALID_ARGUMENT when it is not one,
// NOT_FOUND when it cannot be read.
absl::StatusOr<v1::GenerateRequest> ReadRequest(const std::string& path);

// The pixels of each condition, in order. Paths are relative to the request file. A .npy file
// (uint8, [H, W, 3] or [T, H, W, 3]) is read here, everything else is decoded by kino-media. The
// error names the condition.
absl::StatusOr<std::vector<engine::MediaInput>> ReadConditions(const v1::GenerateRequest& request,
                                                               const std::string& request_file);

// Tells the request what its conditions show. media: of each.
void TellSizes(const std::vector<engine::MediaInput>& media, engine::Request& request);

}  // namespace kino::render
