#include "server/worker/worker_main.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "engine/core/machine.h"
#include "server/command_line/command_line.h"
#include "server/config/config.h"
#include "server/config/data_dir.h"
#include "server/config/log.h"
#include "server/config/stop_times.h"
#include "server/config/worker_threads.h"

namespace kino::worker {
namespace {

using command_line::AddOption;
using command_line::ParseOrExit;

constexpr char kText[] =
    "One worker: runs jobs on one device for the frontend of the same data folder. kinod starts "
    "it; by hand it is useful for debugging.";
constexpr char kEpilogue[] =
    "SIGTERM drains: the running attempt may finish within the deadline, then is interrupted. A "
    "second SIGTERM interrupts at once. Exit codes: 0 drained; 1 could not start, or refused by "
    "the frontend; 2 usage; 70 the device is lost.";

// Prompts are in this process's memory: no core file, and no other process of the user may read it.
void GuardProcess() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  // A file that reaches the limit of this user is an error of the write, as on a full disk.
  signal(SIGXFSZ, SIG_IGN);
  prctl(PR_SET_DUMPABLE, 0);
}

int Usage(const std::string& message) { return command_line::UsageError("kino-worker", message); }

}  // namespace

media::DecodeOptions DecodeOptionsOf(const config::LimitsConfig& limits) {
  media::DecodeOptions options;
  options.max_pixels = limits.max_image_pixels;
  options.max_input_bytes = limits.max_upload_bytes;
  // RGB, with space for the header.
  options.max_output_bytes =
      3 * std::max(limits.max_image_pixels, limits.max_video_pixels) + (int64_t{1} << 20);
  return options;
}

int WorkerMain(int argc, char** argv, const EngineFactory& make_engine,
               const MediaDecoder& decode) {
  // Every later thread inherits it; RunWorker waits for these signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::string config_file, name;
  int drain_seconds = 0;
  CLI::App app(kText, "kino-worker");
  command_line::SetUp(app, kEpilogue);
  AddOption(app, "--config", &config_file, "FILE", "The server's configuration.")->required();
  AddOption(app, "--name", &name, "NAME", "Which of its workers this is.")->required();
  AddOption(app, "--drain-seconds", &drain_seconds, "N",
            "From SIGTERM to the interruption of a running attempt. Default: what "
            "supervisor.stop_deadline leaves for it.");
  if (const auto code = ParseOrExit(app, command_line::Arguments(argc, argv))) return *code;
  auto config = config::LoadConfig(config_file);
  if (!config.ok()) return Usage(std::string(config.status().message()));
  const auto worker = std::find_if(config->workers.begin(), config->workers.end(),
                                   [&](const config::WorkerConfig& w) { return w.name == name; });
  if (worker == config->workers.end()) {
    return Usage("no worker named '" + name + "' in '" + config_file + "'");
  }
  GuardProcess();
  config::SetUpLogging(config->log, "worker " + name);
  auto secret = config::ReadLinkSecret(*config);
  if (!secret.ok()) {
    spdlog::critical("no link secret: {}", std::string(secret.status().message()));
    return kExitFailed;
  }
  WorkerOptions options;
  options.name = name;
  options.address = config::LinkAddress(*config);
  options.link_secret = *std::move(secret);
  options.engine.device = worker->device;
  options.engine.threads = config::WorkerThreads(*config, *worker);
  spdlog::info("threads: {}; usable: {} cores, {} bytes of memory", options.engine.threads,
               engine::UsableCores(), engine::UsableMemoryBytes());
  options.models = config->models;
  options.max_device_memory = worker->max_device_memory;
  options.max_host_memory = worker->max_host_memory;
  options.spool_folder = config->data_dir + "/spool/" + name;
  options.weights_cache = config->data_dir + "/weights/" + name;
  const config::StopTimes times = config::StopTimesOf(config->supervisor.stop_deadline);
  options.drain_deadline = drain_seconds > 0 ? absl::Seconds(drain_seconds) : times.drain;
  options.stop_grace = times.grace;
  options.farewell = times.farewell;
  options.decode = DecodeOptionsOf(config->limits);
  const scheduler::SystemClock clock;
  return RunWorker(options, clock, make_engine, decode);
}

}  // namespace kino::worker
