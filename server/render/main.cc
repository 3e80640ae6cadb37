// kino-render: the engine alone. See --help.
#include <signal.h>

#include <algorithm>
#include <iostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/command_line/command_line.h"
#include "server/render/model_flags.h"
#include "server/render/plan_command.h"
#include "server/render/render.h"

namespace {

using kino::command_line::AddOption;
using kino::command_line::ParseOrExit;
using kino::render::RenderFiles;
using kino::render::RenderOptions;

constexpr char kText[] =
    "Renders one request with the engine alone: no server, no queue. The request is the JSON form "
    "of kino.v1.GenerateRequest; a condition may name a local file as \"path\", relative to the "
    "request. Its own plan goes over the one of the flags. FILE.npy is float32 [T, H, W, 3] in "
    "0..1; FILE.mp4 is H.264. --request and --out may be repeated, one --out for each request in "
    "their order: the model is loaded once, and a request that fails does not stop those after it. "
    "`kino-render plan` tells what a request would need; see its --help.";
constexpr char kEpilogue[] =
    "Exit codes: 0 done; 1 the run failed or was interrupted; 2 usage; 3 the request or the model "
    "cannot be used. Of several requests' the first that is not 0.";

kino::engine::CancelToken interrupted;

void OnInterrupt(int) { interrupted.Cancel(); }

int Refuse(const std::string& message) {
  return kino::command_line::UsageError("kino-render", message);
}

// What is given for each request, in their order.
struct FileFlags {
  std::vector<std::string> requests, outs, stats, taps;
};

absl::StatusOr<std::vector<RenderFiles>> ToRenders(const FileFlags& files) {
  const size_t count = files.requests.size();
  if (count == 0 || files.outs.empty()) {
    return absl::InvalidArgumentError("--model, --request and --out are needed");
  }
  const auto has_one_each = [count](const std::vector<std::string>& values) {
    return values.size() == count;
  };
  if (!has_one_each(files.outs)) {
    return absl::InvalidArgumentError(absl::StrCat("--out: expected one for each of ", count,
                                                   " requests, got ", files.outs.size()));
  }
  for (const auto& [flag, values] : {std::pair("--stats", &files.stats), {"--taps", &files.taps}}) {
    if (!values->empty() && !has_one_each(*values)) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": expected none or one for each of ",
                                                     count, " requests, got ", values->size()));
    }
  }
  if (std::count(files.requests.begin(), files.requests.end(), "-") > 1) {
    return absl::InvalidArgumentError("--request: standard input can be read once");
  }
  std::set<std::string> written;
  std::vector<RenderFiles> renders;
  for (size_t i = 0; i < count; ++i) {
    RenderFiles one{files.requests[i], files.outs[i], "", ""};
    if (!files.stats.empty()) one.stats = files.stats[i];
    if (!files.taps.empty()) one.taps = files.taps[i];
    if (absl::Status status = kino::render::CheckOutputName(one.out); !status.ok()) return status;
    for (const std::string& path : {one.out, one.stats, one.taps}) {
      if (!path.empty() && !written.insert(path).second) {
        return absl::InvalidArgumentError(absl::StrCat("'", path, "' would be written twice"));
      }
    }
    renders.push_back(std::move(one));
  }
  return renders;
}

int Run(int argc, char** argv) {
  const std::vector<std::string> arguments = kino::command_line::Arguments(argc, argv);
  if (!arguments.empty() && arguments[0] == "plan") {
    return kino::render::PlanCommand({arguments.begin() + 1, arguments.end()});
  }
  RenderOptions options;
  CLI::App app(kText, "kino-render");
  kino::command_line::SetUp(app, kEpilogue);
  kino::render::ModelFlags model_flags;
  model_flags.Register(app);
  FileFlags files;
  AddOption(app, "--request", &files.requests, "FILE",
            "The request, - for standard input; repeatable, as are the next three.");
  AddOption(app, "--out", &files.outs, "FILE",
            "Where the result goes; a file is written whole or not at all. - is standard output, "
            "as MP4.");
  AddOption(app, "--stats", &files.stats, "FILE",
            "Writes seconds and peak memory by stage, as JSON.");
  AddOption(app, "--taps", &files.taps, "DIR", "Writes the run's intermediates as .npy files.");
  app.add_flag("--quiet", options.is_quiet, "No progress line, no drawn seed.");
  if (const auto code = ParseOrExit(app, arguments)) return *code;
  absl::StatusOr<std::vector<RenderFiles>> renders = ToRenders(files);
  if (!renders.ok()) return Refuse(std::string(renders.status().message()));
  options.renders = *std::move(renders);
  const absl::Status applied = model_flags.Apply(&options.engine, &options.model);
  if (absl::IsNotFound(applied)) {
    std::cerr << "kino-render: " << std::string(applied.message()) << "\n";
    return kino::render::kBadRequest;
  }
  if (!applied.ok()) return Refuse(std::string(applied.message()));
  signal(SIGINT, OnInterrupt);
  signal(SIGTERM, OnInterrupt);
  return kino::render::Render(options, interrupted);
}

}  // namespace

int main(int argc, char** argv) {
  kino::command_line::GuardStandardStreams();
  const int code = Run(argc, argv);
  return kino::command_line::FinishOutput("kino-render", code, kino::render::kFailed);
}
