// kino-render: the engine alone. See --help.
#include <signal.h>

#include <algorithm>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "server/convert/request.h"
#include "server/flags/flags.h"
#include "server/plan/plan_flags.h"
#include "server/render/model_paths.h"
#include "server/render/render.h"

namespace {

using kino::engine::DType;
using kino::render::RenderOptions;

constexpr char kUsageLine[] =
    "kino-render --model DIR [--model FILE] --request FILE.json --out FILE.npy|FILE.mp4 [flags]";
constexpr char kText[] =
    "Renders one request with the engine alone: no server, no queue. The request is the JSON form "
    "of\n"
    "kino.v1.GenerateRequest; a condition may name a local file as \"path\", relative to the "
    "request.\n"
    "FILE.npy is float32 [T, H, W, 3] in 0..1; FILE.mp4 is H.264. The request's own plan goes over "
    "the flags' one.";
constexpr char kEpilogue[] =
    "Exit codes: 0 done; 1 the run failed or was interrupted; 2 usage; 3 the request or the model "
    "cannot be used.";

kino::engine::CancelToken interrupted;

void OnInterrupt(int) { interrupted.Cancel(); }

int Refuse(const std::string& message) {
  std::cerr << "kino-render: " << message << "\nTry --help.\n";
  return kino::render::kUsage;
}

absl::Status ParseDType(const std::string& text, std::optional<DType>* dtype) {
  if (text == "float32") {
    *dtype = DType::kF32;
  } else if (text == "float16") {
    *dtype = DType::kF16;
  } else if (text == "bfloat16") {
    *dtype = DType::kBF16;
  } else {
    return absl::InvalidArgumentError("--dtype: expected float32, float16 or bfloat16, got '" +
                                      text + "'");
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  RenderOptions options;
  bool help = false, version = false;
  kino::flags::FlagSet flags(kUsageLine, kText, kEpilogue);
  std::vector<std::string> models;
  kino::plan::PlanFlags plan_flags;
  flags.Add("model", &models, "PATH",
            "A folder in diffusers' layout. A second one, or one alone inside such a folder: a "
            "GGUF or single-file safetensors transformer in place of the folder's.");
  flags.Add("request", &options.request_file, "FILE", "The request.");
  flags.Add("out", &options.out, "FILE", "Where the result goes; written whole or not at all.");
  flags.Add("device", &options.engine.device, "NAME", "cpu (default) or cuda:N.");
  flags.AddCustom(
      "dtype", [&](const std::string& text) { return ParseDType(text, &options.model.dtype); },
      "TYPE", "float32 (default on the CPU), float16 or bfloat16 (default on a GPU).");
  flags.Add("variant", &options.model.variant, "NAME", "Which weight files: fp16 or bf16.");
  plan_flags.Register(&flags);
  flags.Add("threads", &options.engine.threads, "N",
            "Threads on the CPU. Default: torch's choice.");
  flags.Add("stats", &options.stats, "FILE", "Writes seconds and peak memory by stage, as JSON.");
  flags.Add("taps", &options.taps, "DIR", "Writes the run's intermediates as .npy files.");
  flags.AddSwitch("quiet", &options.is_quiet, "No progress line, no drawn seed.");
  flags.AddSwitch("help", &help, "Prints this.");
  flags.AddSwitch("version", &version, "Prints the version.");
  const absl::Status parsed =
      flags.Parse(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  if (!parsed.ok()) return Refuse(std::string(parsed.message()));
  if (help) {
    std::cout << flags.Help();
    return 0;
  }
  if (version) {
    std::cout << "kino-render " << KINO_VERSION << "\n";
    return 0;
  }
  if (models.empty() || options.request_file.empty() || options.out.empty()) {
    return Refuse("--model, --request and --out are needed");
  }
  kino::v1::Plan plan;
  if (absl::Status status = plan_flags.Apply(&plan); !status.ok()) {
    return Refuse(std::string(status.message()));
  }
  options.model.plan = kino::convert::ToEngine(plan);
  const auto paths = kino::render::FindModel(models);
  if (!paths.ok()) {
    std::cerr << "kino-render: " << std::string(paths.status().message()) << "\n";
    return kino::render::kBadRequest;
  }
  options.model.folder = paths->folder;
  options.model.transformer_file = paths->transformer_file;
  if (options.engine.threads < 0) return Refuse("--threads: expected 0 or more");
  if (absl::Status status = kino::render::CheckOutputName(options.out); !status.ok()) {
    return Refuse(std::string(status.message()));
  }
  signal(SIGINT, OnInterrupt);
  signal(SIGTERM, OnInterrupt);
  return kino::render::Render(options, interrupted);
}
