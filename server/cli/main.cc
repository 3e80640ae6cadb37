// kino: the command line client. See --help.
#include <string>
#include <vector>

#include "server/cli/client.h"
#include "server/cli/commands.h"
#include "server/cli/run_cli.h"
#include "server/command_line/command_line.h"

int main(int argc, char** argv) {
  kino::command_line::GuardStandardStreams();
  const std::vector<std::string> arguments = kino::command_line::Arguments(argc, argv);
  const auto code = kino::cli::ExitCode(kino::cli::RunCli(arguments));
  kino::cli::ErrorStyle style;
  style.is_json = kino::cli::WantsJson(arguments);
  return kino::cli::CheckOutputWritten(code, style);
}
