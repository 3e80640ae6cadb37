// kino-frontend: API, queue, artifacts, metrics. kinod starts it; by hand it works too, for
// debugging.
#include <grpc/grpc.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/core/cancel.h"
#include "server/command_line/command_line.h"
#include "server/config/config.h"
#include "server/config/control.h"
#include "server/config/log.h"
#include "server/frontend/frontend.h"
#include "server/frontend/rpc/probe.h"

namespace {

using kino::command_line::AddOption;
using kino::command_line::ParseOrExit;

int Fail(const absl::Status& status, int code) {
  fprintf(stderr, "kino-frontend: %s\n", std::string(status.message()).c_str());
  return code;
}

// Prompts are in this process's memory: no core file, and no other process of the user may read it.
// Each watcher may hold a file and a connection.
void GuardProcess() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
}

}  // namespace

int main(int argc, char** argv) {
  // Every later thread inherits it; they are waited for below.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  // A file that may not grow is an error to answer, not an end.
  signal(SIGXFSZ, SIG_IGN);

  std::string config_file;
  int control_fd = -1;
  std::string supervisor;
  CLI::App app("API, queue, artifacts and metrics of one server. kinod starts it.",
               "kino-frontend");
  kino::command_line::SetUp(app);
  AddOption(app, "--config", &config_file, "FILE", "The configuration (see config/kino.yaml).")
      ->required();
  AddOption(app, "--control-fd", &control_fd, "N", "The inherited socket to kinod.");
  AddOption(app, "--supervisor", &supervisor, "ID", "Which kinod that is.");
  if (const auto code = ParseOrExit(app, kino::command_line::Arguments(argc, argv))) return *code;
  absl::StatusOr<kino::config::Config> config = kino::config::LoadConfig(config_file);
  if (!config.ok()) return Fail(config.status(), kino::config::kExitUnusable);
  GuardProcess();
  kino::config::SetUpLogging(config->log, "kino-frontend");

  // gRPC is never shut down: the last one to let go of it can wait ten seconds for a poller of its
  // own, before the store is closed.
  grpc_init();
  kino::engine::CancelToken stop_probe;
  kino::media::DecodeOptions decode;
  decode.cancel = &stop_probe;
  kino::frontend::FrontendOptions options{
      .config = *config,
      .probe = kino::frontend::MakeProbe(config->limits, decode),
      .stop_probe = [&stop_probe] { stop_probe.Cancel(); },
      .control_fd = control_fd,
      .supervisor_id = supervisor};
  absl::StatusOr<std::unique_ptr<kino::frontend::Frontend>> frontend =
      kino::frontend::Frontend::Start(std::move(options));
  if (!frontend.ok()) {
    // A full disk or a busy store may pass; a configuration or a folder that cannot be used does
    // not mend itself.
    const bool may_pass =
        absl::IsUnavailable(frontend.status()) || absl::IsResourceExhausted(frontend.status());
    return Fail(frontend.status(), may_pass ? 1 : kino::config::kExitUnusable);
  }
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  spdlog::info("signal {}: stopping", signal_number);
  (*frontend)->Stop();
  spdlog::shutdown();
  // Everything durable is closed. Only the metrics listener is left, whose server sees no earlier
  // than its next poll, up to two seconds away, that it is to end: a restart does not wait for
  // that.
  std::_Exit(0);
}
