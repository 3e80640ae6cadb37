// kinod: serves one machine. See supervisor.h.
#include <stdio.h>
#include <unistd.h>

#include <climits>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "server/command_line/command_line.h"
#include "server/config/config.h"
#include "server/config/control.h"
#include "server/config/data_dir.h"
#include "server/config/log.h"
#include "server/supervisor/check.h"
#include "server/supervisor/supervisor.h"

namespace {

using kino::command_line::AddOption;
using kino::command_line::ParseOrExit;
using kino::command_line::SetUp;

int Fail(const absl::Status& status, int code = 1) {
  fprintf(stderr, "kinod: %s\n", std::string(status.message()).c_str());
  return code;
}

int Run(int argc, char** argv) {
  std::string config_file;
  std::string check_file;
  bool workers_only = false;
  CLI::App app(
      "Serves one machine: starts kino-frontend and its workers, watches and restarts them.",
      "kinod");
  SetUp(app);
  AddOption(app, "--config", &config_file, "FILE", "The configuration (see config/kino.yaml).");
  AddOption(app, "--check-config", &check_file, "FILE",
            "Checks a configuration and prints what it means.");
  app.add_flag("--workers-only", workers_only, "Workers for another machine's frontend.");
  if (const auto code = ParseOrExit(app, kino::command_line::Arguments(argc, argv))) return *code;
  if (workers_only) {
    return Fail(absl::UnimplementedError(
                    "--workers-only: workers on other machines need mutual TLS, which this version "
                    "does not have; run kinod on the frontend's machine"),
                2);
  }
  if (!check_file.empty()) {
    const absl::StatusOr<kino::config::Config> config = kino::config::LoadConfig(check_file);
    if (!config.ok()) return Fail(config.status());
    const absl::StatusOr<std::string> summary = kino::supervisor::CheckConfig(*config);
    if (!summary.ok()) return Fail(summary.status());
    fputs(summary->c_str(), stdout);
    return 0;
  }
  if (config_file.empty()) {
    return Fail(absl::InvalidArgumentError("--config FILE is missing; config/demo.yaml is one"), 2);
  }
  absl::StatusOr<kino::config::Config> config = kino::config::LoadConfig(config_file);
  if (!config.ok()) return Fail(config.status(), kino::config::kExitUnusable);
  kino::config::SetUpLogging(config->log, "kinod");
  kino::supervisor::Notifier notifier = kino::supervisor::Notifier::TakeFromEnvironment();
  absl::Status ready = kino::config::PrepareDataDir(*config);
  if (ready.ok()) ready = kino::config::PrepareLinkFolder(*config);
  if (ready.ok()) ready = kino::config::EnsureLinkSecret(*config).status();
  if (!ready.ok()) return Fail(ready);

  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Fail(absl::InternalError("/proc/self/exe cannot be read"));
  spdlog::info("kinod {} serves {}", KINO_VERSION, config->data_dir);
  kino::supervisor::Supervisor supervisor({.bin_dir = self.parent_path().string(),
                                           .config = *std::move(config),
                                           .notifier = std::move(notifier)});
  const absl::Status result = supervisor.Run();
  if (!result.ok()) {
    return Fail(result, absl::IsFailedPrecondition(result) ? kino::config::kExitUnusable : 1);
  }
  spdlog::info("kinod has stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  kino::command_line::GuardStandardStreams();
  const int code = Run(argc, argv);
  return kino::command_line::FinishOutput("kinod", code, 1);
}
