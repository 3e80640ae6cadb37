// Logging of the server's processes: spdlog to standard error, plain or one JSON object per line.
// Never log a prompt.
#pragma once

#include <string>
#include <string_view>

#include "server/config/config.h"

namespace kino::config {

// Sets spdlog's default logger. REQUIRES: called before other threads log. `process` is
// "kino-frontend", "worker cpu-0", ...
void SetUpLogging(const LogConfig& log, const std::string& process);

// `text` as the inside of a JSON string.
std::string JsonEscape(std::string_view text);

}  // namespace kino::config
