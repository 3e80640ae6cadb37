// kino: the command line client. See --help.
#include <algorithm>

#include "server/cli/run_cli.h"

int main(int argc, char** argv) {
  return kino::cli::RunCli(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
}
