// kinod: serves one machine. See supervisor.h.
#include <stdio.h>
#include <unistd.h>

#include <climits>
#include <filesystem>
#include <string>
#include <vector>

#include <spdlog/spdlog.h>

#include "server/config/config.h"
#include "server/config/data_dir.h"
#include "server/config/log.h"
#include "server/flags/flags.h"
#include "server/supervisor/check.h"
#include "server/supervisor/supervisor.h"

namespace {

int Fail(const absl::Status& status) {
  fprintf(stderr, "kinod: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::string config_file;
  std::string check_file;
  bool workers_only = false;
  bool version = false;
  bool help = false;
  kino::flags::FlagSet flags("kinod --config FILE",
                             "Serves one machine: starts kino-frontend and its workers, watches "
                             "and restarts them.");
  flags.Add("config", &config_file, "FILE", "the configuration (see config/kino.yaml)");
  flags.Add("check-config", &check_file, "FILE", "check a configuration, print what it means");
  flags.AddSwitch("workers-only", &workers_only, "workers for another machine's frontend");
  flags.AddSwitch("version", &version, "print the version");
  flags.AddSwitch("help", &help, "print this");
  const absl::Status parsed = flags.Parse(std::vector<std::string>(argv + 1, argv + argc));
  if (!parsed.ok()) return Fail(parsed), 2;
  if (help) {
    fputs(flags.Help().c_str(), stdout);
    return 0;
  }
  if (version) {
    puts("kinod " KINO_VERSION);
    return 0;
  }
  if (workers_only) {
    return Fail(absl::UnimplementedError(
               "--workers-only: workers on other machines need mutual TLS, which this version does "
               "not have; run kinod on the frontend's machine")),
           2;
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
    return Fail(absl::InvalidArgumentError("--config FILE is missing; config/demo.yaml is one")), 2;
  }
  absl::StatusOr<kino::config::Config> config = kino::config::LoadConfig(config_file);
  if (!config.ok()) return Fail(config.status());
  kino::config::SetUpLogging(config->log, "kinod");
  absl::Status ready = kino::config::PrepareDataDir(*config);
  if (ready.ok()) ready = kino::config::PrepareLinkFolder(*config);
  if (ready.ok()) ready = kino::config::EnsureLinkSecret(*config).status();
  if (!ready.ok()) return Fail(ready);

  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Fail(absl::InternalError("/proc/self/exe cannot be read"));
  spdlog::info("kinod {} serves {}", KINO_VERSION, config->data_dir);
  kino::supervisor::Supervisor supervisor(
      {.bin_dir = self.parent_path().string(), .config = *std::move(config)});
  const absl::Status result = supervisor.Run();
  if (!result.ok()) return Fail(result);
  spdlog::info("kinod has stopped");
  return 0;
}
