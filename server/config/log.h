// Logging of the server's processes: spdlog to standard error, plain or one JSON object per line.
// Never log a prompt.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "server/config/config.h"

namespace kino::config {

// Sets spdlog's default logger. REQUIRES: called before other threads log. `process` is
// "kino-frontend", "worker cpu-0", ...
void SetUpLogging(const LogConfig& log, const std::string& process);

// One message. Whatever a peer or a file put into it, it stays one line and does not steer a
// terminal: control characters are told as \xNN (JSON: \u00NN), bytes that are not UTF-8 as U+FFFD.
struct LogLine {
  absl::Time time;
  std::string level;
  std::string process;
  std::string message;
};
std::string PlainLine(const LogLine& line);
std::string JsonLine(const LogLine& line);

}  // namespace kino::config
