// `kino upload`, and the uploads behind --image and its like. Free functions; blocking.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "server/cli/client.h"
#include "server/cli/request_flags.h"

namespace kino::cli {

// Sends the file with its size and SHA-256 declared.
absl::StatusOr<v1::Asset> UploadFile(Client& client, const std::string& path);

// Uploads the input's files and names the assets in their conditions.
absl::Status UploadConditions(Client& client, RequestInput* input);

}  // namespace kino::cli
