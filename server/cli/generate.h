// `kino generate`, `kino submit` and `kino watch`.
#pragma once

#include <string>
#include <vector>

#include "server/cli/client.h"

namespace kino::cli {

ExitCode GenerateCommand(const std::vector<std::string>& arguments);
ExitCode SubmitCommand(const std::vector<std::string>& arguments);
ExitCode WatchCommand(const std::vector<std::string>& arguments);

}  // namespace kino::cli
