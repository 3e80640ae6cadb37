// The commands that are one call each, and what all commands share. One thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/cli/client.h"
#include "server/flags/flags.h"

namespace kino::cli {

// --server, --token, --json, --quiet, --help: every command takes them.
struct CommonFlags {
  ServerOptions server;
  bool is_json = false, is_quiet = false, help = false;

  CommonFlags();  // KINO_SERVER and KINO_TOKEN, else the defaults
  void Register(flags::FlagSet* flags);
  // Parses; an exit code when that is all there is to do (a mistake, or --help).
  std::optional<ExitCode> Parse(const flags::FlagSet& flags,
                                const std::vector<std::string>& arguments);
  // The same of a command whose help has more to it: `print_help` prints it.
  std::optional<ExitCode> Parse(const flags::FlagSet& flags,
                                const std::vector<std::string>& arguments,
                                absl::FunctionRef<void()> print_help);
};

ExitCode UsageError(const std::string& message);

ExitCode JobsCommand(const std::vector<std::string>& arguments);
ExitCode ShowCommand(const std::vector<std::string>& arguments);
ExitCode CancelCommand(const std::vector<std::string>& arguments);
ExitCode DeleteCommand(const std::vector<std::string>& arguments);
ExitCode DownloadCommand(const std::vector<std::string>& arguments);
ExitCode PlanCommand(const std::vector<std::string>& arguments);  // plan_command.cc
ExitCode ModelsCommand(const std::vector<std::string>& arguments);
ExitCode LoadCommand(const std::vector<std::string>& arguments);
ExitCode UnloadCommand(const std::vector<std::string>& arguments);
ExitCode UploadCommand(const std::vector<std::string>& arguments);

}  // namespace kino::cli
