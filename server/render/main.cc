// kino-render: the engine alone. See --help.
#include <signal.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "server/flags/flags.h"
#include "server/render/model_flags.h"
#include "server/render/plan_command.h"
#include "server/render/render.h"

namespace {

using kino::render::RenderOptions;

constexpr char kUsageLine[] =
    "kino-render --model DIR [--model FILE] --request FILE.json --out FILE.npy|FILE.mp4 [flags]\n"
    "       kino-render plan --model DIR [flags]";
constexpr char kText[] =
    "Renders one request with the engine alone: no server, no queue. The request is the JSON form "
    "of\n"
    "kino.v1.GenerateRequest; a condition may name a local file as \"path\", relative to the "
    "request.\n"
    "Its own plan goes over the one of the flags. FILE.npy is float32 [T, H, W, 3] in 0..1; "
    "FILE.mp4 is\n"
    "H.264. `kino-render plan` tells what a request would need; see its --help.";
constexpr char kEpilogue[] =
    "Exit codes: 0 done; 1 the run failed or was interrupted; 2 usage; 3 the request or the model "
    "cannot be used.";

kino::engine::CancelToken interrupted;

void OnInterrupt(int) { interrupted.Cancel(); }

int Refuse(const std::string& message) {
  std::cerr << "kino-render: " << message << "\nTry --help.\n";
  return kino::render::kUsage;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (!arguments.empty() && arguments[0] == "plan") {
    return kino::render::PlanCommand({arguments.begin() + 1, arguments.end()});
  }
  RenderOptions options;
  bool help = false, version = false;
  kino::flags::FlagSet flags(kUsageLine, kText, kEpilogue);
  kino::render::ModelFlags model_flags;
  model_flags.Register(&flags);
  flags.Add("request", &options.request_file, "FILE", "The request.");
  flags.Add("out", &options.out, "FILE", "Where the result goes; written whole or not at all.");
  flags.Add("threads", &options.engine.threads, "N",
            "Threads on the CPU. Default: torch's choice.");
  flags.Add("stats", &options.stats, "FILE", "Writes seconds and peak memory by stage, as JSON.");
  flags.Add("taps", &options.taps, "DIR", "Writes the run's intermediates as .npy files.");
  flags.AddSwitch("quiet", &options.is_quiet, "No progress line, no drawn seed.");
  flags.AddSwitch("help", &help, "Prints this.");
  flags.AddSwitch("version", &version, "Prints the version.");
  const absl::Status parsed = flags.Parse(arguments);
  if (!parsed.ok()) return Refuse(std::string(parsed.message()));
  if (help) {
    std::cout << flags.Help();
    return 0;
  }
  if (version) {
    std::cout << "kino-render " << KINO_VERSION << "\n";
    return 0;
  }
  if (options.request_file.empty() || options.out.empty()) {
    return Refuse("--model, --request and --out are needed");
  }
  const absl::Status applied = model_flags.Apply(&options.engine, &options.model);
  if (absl::IsNotFound(applied)) {
    std::cerr << "kino-render: " << std::string(applied.message()) << "\n";
    return kino::render::kBadRequest;
  }
  if (!applied.ok()) return Refuse(std::string(applied.message()));
  if (options.engine.threads < 0) return Refuse("--threads: expected 0 or more");
  if (absl::Status status = kino::render::CheckOutputName(options.out); !status.ok()) {
    return Refuse(std::string(status.message()));
  }
  signal(SIGINT, OnInterrupt);
  signal(SIGTERM, OnInterrupt);
  return kino::render::Render(options, interrupted);
}
