// The command line of `kino`: picks the command.
#pragma once

#include <string>
#include <vector>

namespace kino::cli {

// `arguments` without the program's name. Returns the exit code. REQUIRES: no other thread runs yet
// (it blocks SIGINT).
int RunCli(const std::vector<std::string>& arguments);

}  // namespace kino::cli
