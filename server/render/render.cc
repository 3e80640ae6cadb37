#include "server/render/render.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/convert/memory_estimate.h"
#include "server/convert/request.h"
#include "server/render/inputs.h"
#include "server/render/output.h"
#include "server/render/stats.h"
#include "server/render/taps.h"

namespace kino::render {
namespace {

// `name` ends with ": " or is empty.
ExitCode Report(ExitCode code, const std::string& name, const absl::Status& status) {
  std::cerr << "kino-render: " << name << std::string(status.message()) << "\n";
  return code;
}

// What ran out or broke while the model was read is the run's fault; what is wrong with the model
// is the caller's.
ExitCode LoadErrorCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kCancelled:
      return kFailed;
    default:
      return kBadRequest;
  }
}

class ProgressLine {
 public:
  // `prefix` goes before each line: which request this is of several.
  ProgressLine(bool is_shown, std::string prefix)
      : is_shown_(is_shown), prefix_(std::move(prefix)) {}
  ~ProgressLine() { Clear(); }
  void Show(const engine::RunProgress& progress) {
    if (!is_shown_) return;
    std::fprintf(stderr, "\r\033[K%s%3.0f%%  %s %d/%d", prefix_.c_str(), progress.fraction * 100,
                 engine::StageName(progress.stage), progress.step, progress.total_steps);
    if (progress.eta_seconds) std::fprintf(stderr, "  %.0f s left", *progress.eta_seconds);
    std::fflush(stderr);
  }
  void Clear() {
    if (is_shown_) std::fputs("\r\033[K", stderr);
  }

 private:
  const bool is_shown_;
  const std::string prefix_;
};

uint64_t DrawSeed() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

// One request, from its file to its result. Each step says on standard error why it fails.
class OneRender {
 public:
  // `name`: how messages call it; empty where there is no other.
  OneRender(const RenderOptions& options, const RenderFiles& files, const std::string& name)
      : options_(options), files_(files), name_(name.empty() ? "" : name + ": ") {}

  ExitCode ReadRequest();
  // Brings the conditions and opens the output.
  ExitCode Prepare();
  ExitCode Run(engine::Model& model, const engine::CancelToken& cancel);
  bool is_prepared() const { return output_ != nullptr; }

 private:
  ExitCode Report(ExitCode code, const absl::Status& status) const {
    return render::Report(code, name_, status);
  }
  ExitCode ReportViolations(const std::vector<engine::FieldViolation>& violations) const;
  // Until the run is finished.
  ExitCode Advance(engine::Run& run) const;

  const RenderOptions& options_;
  const RenderFiles& files_;
  const std::string name_;  // as a message's prefix
  v1::GenerateRequest message_;
  engine::Request request_;
  std::vector<engine::MediaInput> media_;
  std::unique_ptr<Output> output_;
};

ExitCode OneRender::ReportViolations(const std::vector<engine::FieldViolation>& violations) const {
  std::cerr << "kino-render: " << name_ << "the request cannot be run:\n";
  for (const engine::FieldViolation& violation : violations) {
    std::cerr << "  " << violation.field << ": " << violation.description << "\n";
  }
  return kBadRequest;
}

ExitCode OneRender::ReadRequest() {
  auto message = kino::render::ReadRequest(files_.request);
  if (!message.ok()) return Report(kBadRequest, message.status());
  convert::EngineRequest request = convert::ToEngine(*message);
  if (!request.violations.empty()) return ReportViolations(request.violations);
  message_ = *std::move(message);
  request_ = std::move(request.request);
  return kOk;
}

ExitCode OneRender::Prepare() {
  auto media = ReadConditions(message_, files_.request);
  if (!media.ok()) return Report(kBadRequest, media.status());
  auto output = Output::Create(files_.out);
  if (!output.ok()) return Report(kFailed, output.status());
  media_ = *std::move(media);
  output_ = *std::move(output);
  return kOk;
}

ExitCode OneRender::Run(engine::Model& model, const engine::CancelToken& cancel) {
  TellSizes(media_, request_);
  engine::ResolvedRequest resolved =
      engine::ResolveRequest(model.description(), request_, DrawSeed());
  if (!resolved.violations.empty()) return ReportViolations(resolved.violations);
  if (!request_.seed && !options_.is_quiet) {
    std::cerr << name_ << "seed " << *resolved.request.seed << "\n";
  }

  TapWriter taps(files_.taps);
  engine::RunOptions run_options;
  run_options.output = output_->Sink();
  run_options.cancel = &cancel;
  if (!files_.taps.empty()) {
    if (absl::Status status = taps.Prepare(); !status.ok()) return Report(kFailed, status);
    run_options.tap = [&taps](std::string_view name, absl::Span<const int64_t> shape,
                              const float* data) { taps.Take(name, shape, data); };
  }
  auto run = model.Start(resolved.request, std::move(media_), std::move(run_options));
  if (!run.ok()) {
    const bool cannot_run =
        absl::IsInvalidArgument(run.status()) || absl::IsFailedPrecondition(run.status());
    return Report(cannot_run ? kBadRequest : kFailed, run.status());
  }
  if (ExitCode code = Advance(**run); code != kOk) return code;
  if (absl::Status status = output_->Finish(); !status.ok()) return Report(kFailed, status);
  if (!files_.taps.empty()) {
    if (absl::Status status = taps.Finish(); !status.ok()) return Report(kFailed, status);
  }
  if (files_.stats.empty()) return kOk;
  const engine::ComputeDTypes dtype = options_.model.dtype.On(options_.engine.device != "cpu");
  Stats stats{options_.model.folder, options_.engine.device, dtype.ToString(),
              model.load_stats(),    (*run)->result(),       message_};
  convert::FromEngine(resolved.request, &stats.effective_request);
  const absl::Status status = WriteStats(files_.stats, stats);
  return status.ok() ? kOk : Report(kFailed, status);
}

ExitCode OneRender::Advance(engine::Run& run) const {
  ProgressLine line(!options_.is_quiet && isatty(STDERR_FILENO) == 1, name_);
  while (true) {
    line.Show(run.progress());
    auto more = run.Advance();
    if (!more.ok()) {
      line.Clear();
      return Report(kFailed, more.status());
    }
    if (!*more) return kOk;
  }
}

}  // namespace

absl::Status CheckOutputName(const std::string& out) {
  if (absl::EndsWith(out, ".npy")) return absl::OkStatus();
  if (!absl::EndsWith(out, ".mp4") && out != "-") {
    return absl::InvalidArgumentError(
        absl::StrCat("--out: expected FILE.npy or FILE.mp4, or -, got '", out, "'"));
  }
#ifdef KINO_WITH_MEDIA
  return absl::OkStatus();
#else
  return absl::InvalidArgumentError(
      absl::StrCat("--out: '", out, "': this build has no video encoder; use FILE.npy"));
#endif
}

ExitCode Render(const RenderOptions& options, const engine::CancelToken& cancel) {
  ExitCode first_failure = kOk;
  const auto succeeded = [&first_failure](ExitCode code) {
    if (first_failure == kOk) first_failure = code;
    return code == kOk;
  };
  std::vector<std::unique_ptr<OneRender>> renders;
  for (const RenderFiles& files : options.renders) {
    auto render = std::make_unique<OneRender>(options, files,
                                              options.renders.size() > 1 ? files.request : "");
    if (succeeded(render->ReadRequest())) renders.push_back(std::move(render));
  }
  // Before the weights are read, which can take minutes. Only the first one's: decoded conditions
  // are large.
  while (!renders.empty() && !succeeded(renders.front()->Prepare())) {
    renders.erase(renders.begin());
  }
  if (renders.empty()) return first_failure;

  auto engine = engine::Engine::Create(options.engine);
  if (!engine.ok()) return Report(kUsage, "", engine.status());
  auto model = (*engine)->Load(options.model, &cancel);
  if (!model.ok()) return Report(LoadErrorCode(model.status()), "", model.status());
  for (std::unique_ptr<OneRender>& render : renders) {
    if (render->is_prepared() || succeeded(render->Prepare())) {
      succeeded(render->Run(**model, cancel));
    }
    render.reset();
    if (!cancel.Check().ok() || (*engine)->device_lost()) break;
  }
  return first_failure;
}

}  // namespace kino::render
