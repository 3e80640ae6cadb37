#include "server/render/render.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <random>
#include <utility>

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

ExitCode Report(ExitCode code, const absl::Status& status) {
  std::cerr << "kino-render: " << std::string(status.message()) << "\n";
  return code;
}

ExitCode ReportViolations(const std::vector<engine::FieldViolation>& violations) {
  std::cerr << "kino-render: the request cannot be run:\n";
  for (const engine::FieldViolation& violation : violations) {
    std::cerr << "  " << violation.field << ": " << violation.description << "\n";
  }
  return kBadRequest;
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
  explicit ProgressLine(bool is_shown) : is_shown_(is_shown) {}
  ~ProgressLine() { Clear(); }
  void Show(const engine::RunProgress& progress) {
    if (!is_shown_) return;
    std::fprintf(stderr, "\r\033[K%3.0f%%  %s %d/%d", progress.fraction * 100,
                 engine::StageName(progress.stage), progress.step, progress.total_steps);
    if (progress.eta_seconds) std::fprintf(stderr, "  %.0f s left", *progress.eta_seconds);
    std::fflush(stderr);
  }
  void Clear() {
    if (is_shown_) std::fputs("\r\033[K", stderr);
  }

 private:
  const bool is_shown_;
};

uint64_t DrawSeed() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

}  // namespace

absl::Status CheckOutputName(const std::string& out) {
  if (absl::EndsWith(out, ".npy")) return absl::OkStatus();
  if (!absl::EndsWith(out, ".mp4")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--out: expected FILE.npy or FILE.mp4, got '", out, "'"));
  }
#ifdef KINO_WITH_MEDIA
  return absl::OkStatus();
#else
  return absl::InvalidArgumentError(
      absl::StrCat("--out: '", out, "': this build has no video encoder; use FILE.npy"));
#endif
}

ExitCode Render(const RenderOptions& options, const engine::CancelToken& cancel) {
  auto message = ReadRequest(options.request_file);
  if (!message.ok()) return Report(kBadRequest, message.status());
  convert::EngineRequest request = convert::ToEngine(*message);
  if (!request.violations.empty()) return ReportViolations(request.violations);
  auto media = ReadConditions(*message, options.request_file);
  if (!media.ok()) return Report(kBadRequest, media.status());

  // Before the weights are read, which can take minutes.
  auto output = Output::Create(options.out);
  if (!output.ok()) return Report(kFailed, output.status());

  auto engine = engine::Engine::Create(options.engine);
  if (!engine.ok()) return Report(kUsage, engine.status());
  auto model = (*engine)->Load(options.model, &cancel);
  if (!model.ok()) return Report(LoadErrorCode(model.status()), model.status());
  engine::ResolvedRequest resolved =
      engine::ResolveRequest((*model)->description(), request.request, DrawSeed());
  if (!resolved.violations.empty()) return ReportViolations(resolved.violations);
  if (!request.request.seed && !options.is_quiet) {
    std::cerr << "seed " << *resolved.request.seed << "\n";
  }

  TapWriter taps(options.taps);
  engine::RunOptions run_options;
  run_options.output = (*output)->Sink();
  run_options.cancel = &cancel;
  if (!options.taps.empty()) {
    if (absl::Status status = taps.Prepare(); !status.ok()) return Report(kFailed, status);
    run_options.tap = [&taps](std::string_view name, absl::Span<const int64_t> shape,
                              const float* data) { taps.Take(name, shape, data); };
  }
  auto run = (*model)->Start(resolved.request, *std::move(media), std::move(run_options));
  if (!run.ok()) {
    const bool cannot_run =
        absl::IsInvalidArgument(run.status()) || absl::IsFailedPrecondition(run.status());
    return Report(cannot_run ? kBadRequest : kFailed, run.status());
  }
  {
    ProgressLine line(!options.is_quiet && isatty(STDERR_FILENO) == 1);
    bool more = true;
    while (more) {
      line.Show((*run)->progress());
      auto advanced = (*run)->Advance();
      if (!advanced.ok()) {
        line.Clear();
        return Report(kFailed, advanced.status());
      }
      more = *advanced;
    }
  }
  if (absl::Status status = (*output)->Finish(); !status.ok()) return Report(kFailed, status);
  if (!options.taps.empty()) {
    if (absl::Status status = taps.Finish(); !status.ok()) return Report(kFailed, status);
  }
  if (!options.stats.empty()) {
    const engine::DType dtype = options.model.dtype.value_or(
        options.engine.device == "cpu" ? engine::DType::kF32 : engine::DType::kBF16);
    Stats stats{options.model.folder,   options.engine.device, convert::DTypeText(dtype),
                (*model)->load_stats(), (*run)->result(),      *message};
    convert::FromEngine(resolved.request, &stats.effective_request);
    if (absl::Status status = WriteStats(options.stats, stats); !status.ok()) {
      return Report(kFailed, status);
    }
  }
  return kOk;
}

}  // namespace kino::render
