#include "server/cli/run_cli.h"

#include <pthread.h>
#include <signal.h>

#include <iostream>

#include "absl/strings/str_format.h"
#include "server/cli/commands.h"
#include "server/cli/generate.h"

namespace kino::cli {
namespace {

struct Command {
  const char* name;
  const char* help;
  ExitCode (*run)(const std::vector<std::string>&);
};

constexpr Command kCommands[] = {
    {"generate", "makes a video: submits, shows progress, writes the file", GenerateCommand},
    {"submit", "queues a job and prints its id", SubmitCommand},
    {"watch", "follows a job to its end", WatchCommand},
    {"jobs", "lists jobs", JobsCommand},
    {"show", "shows one job", ShowCommand},
    {"cancel", "cancels a job", CancelCommand},
    {"requeue", "lets a job run again that has failed", RequeueCommand},
    {"delete", "removes an ended job and its video", DeleteCommand},
    {"download", "fetches a finished job's video", DownloadCommand},
    {"upload", "uploads an image or video", UploadCommand},
    {"models", "lists the models", ModelsCommand},
    {"plan", "shows what a request would need, before it is submitted", PlanCommand},
    {"health", "asks whether the server serves", HealthCommand},
    {"doctor", "looks at this machine, and says what to do", DoctorCommand},
    {"load", "makes a worker hold a model", LoadCommand},
    {"unload", "frees a model on every worker", UnloadCommand},
};

void PrintHelp() {
  std::cout << "Usage: kino COMMAND [flags]\n\nThe command line client of a Kino server.\n\n";
  for (const Command& command : kCommands) {
    std::cout << absl::StrFormat("  %-10s %s\n", command.name, command.help);
  }
  std::cout
      << "\nkino COMMAND --help tells the command's flags; kino --version the version.\n"
         "The server is --server, else $KINO_SERVER, else 127.0.0.1:50051; the token is --token, "
         "else $KINO_TOKEN. TLS is --tls-ca and its kind, else $KINO_TLS_CA and so on.\n"
         "\nExit codes: 0 done; 1 the job failed; 2 usage; 3 the server cannot be reached;\n"
         "4 refused by the server, or a local file cannot be read or written; 5 the job was "
         "cancelled;\n130 interrupted, the job goes on.\nErrors are told on standard error; with "
         "--json as one JSON object: {\"error\": {\"code\",\n\"reason\", \"message\", ...}}.\n";
}

}  // namespace

int RunCli(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return UsageError("a command is missing", false);
  if (arguments[0] == "--help" || arguments[0] == "help") {
    PrintHelp();
    return kOk;
  }
  if (arguments[0] == "--version") {
    std::cout << "kino " << KINO_VERSION << "\n";
    return kOk;
  }
  for (const Command& command : kCommands) {
    if (arguments[0] != command.name) continue;
    // Only following a job gives SIGINT a meaning of its own; elsewhere it simply ends the program.
    if (command.run == GenerateCommand || command.run == WatchCommand) {
      sigset_t signals;
      sigemptyset(&signals);
      sigaddset(&signals, SIGINT);
      pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    }
    return command.run({arguments.begin() + 1, arguments.end()});
  }
  return UsageError("unknown command '" + arguments[0] + "'", WantsJson(arguments));
}

}  // namespace kino::cli
