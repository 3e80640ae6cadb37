// kino: the command line client. See --help.
#include "server/cli/client.h"
#include "server/cli/run_cli.h"
#include "server/command_line/command_line.h"

int main(int argc, char** argv) {
  kino::command_line::GuardStandardStreams();
  const int code = kino::cli::RunCli(kino::command_line::Arguments(argc, argv));
  return kino::command_line::FinishOutput("kino", code, kino::cli::kRefused);
}
