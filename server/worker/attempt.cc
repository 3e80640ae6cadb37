#include "server/worker/attempt.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/fault_point.h"
#include "server/convert/job.h"
#include "server/convert/request.h"
#include "server/convert/status.h"
#include "server/digest/sha256.h"
#include "server/worker/attempt_failure.h"

namespace kino::worker {
namespace {

constexpr size_t kMaxChunkBytes = 256 << 10;
constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

// UNAVAILABLE: this machine has no memory or descriptor left for the decoder.
v1::AttemptFailed::Cause DecodeCause(const absl::Status& error) {
  if (absl::IsInvalidArgument(error)) return v1::AttemptFailed::CLIENT;
  return absl::IsUnavailable(error) ? v1::AttemptFailed::SHORTAGE : v1::AttemptFailed::INTERNAL;
}

class AttemptRun {
 public:
  AttemptRun(const AttemptContext& context, HeldAttempt& attempt)
      : context_(context), attempt_(attempt) {}

  void Run() {
    if (!attempt_.Begin(context_.clock.Monotonic())) return;
    v1::AttemptEvent started;
    *started.mutable_started()->mutable_plan() = attempt_.command().request().plan();
    std::optional<Failure> failure;
    if (absl::Status status = Emit(std::move(started)); !status.ok()) {
      failure = SpoolFailure(status);
    } else {
      failure = Work();
    }
    context_.measure_memory();
    if (failure) {
      FailAttempt(attempt_, *failure, stages_);
    } else {
      spdlog::info("job {} attempt {} done: {} bytes", attempt_.ref().job_id(),
                   attempt_.ref().attempt(), size_);
    }
    context_.notify();
  }

 private:
  std::optional<Failure> Work() {
    if (std::optional<Failure> stopped = StopFailure(attempt_)) return stopped;
    convert::EngineRequest request = convert::ToEngine(attempt_.command().request());
    if (!request.violations.empty()) {
      return Failure{v1::AttemptFailed::CLIENT, convert::InvalidRequest(request.violations)};
    }
    request.request.plan = context_.models.Limited(request.request.plan);
    std::shared_ptr<engine::Model> model;
    if (std::optional<Failure> failure = LoadModel(&model)) return failure;
    KINO_FAULT_POINT("worker.model.loaded");
    std::vector<engine::MediaInput> media;
    if (std::optional<Failure> failure = DecodeConditions(request.request, &media)) return failure;

    engine::RunOptions options;
    options.cancel = &attempt_.token();
    options.output.mp4 = [this](std::string_view bytes) { return TakeBytes(bytes); };
    auto run = model->Start(request.request, std::move(media), std::move(options));
    if (!run.ok()) return RunFailure(run.status());
    attempt_.pulse().RunBegins(run->get());
    KINO_FAULT_POINT("worker.run.begun");
    absl::Status status = Drive(**run);
    attempt_.pulse().RunEnds();
    if (!status.ok()) {
      run->reset();  // it takes no bytes any more
      return RunFailure(status);
    }
    if (std::optional<Failure> failure = SendDone((*run)->result())) return failure;
    return std::nullopt;
  }

  std::optional<Failure> LoadModel(std::shared_ptr<engine::Model>* model) {
    PublishStage(v1::LOAD);
    auto loaded = context_.models.Load(attempt_.command().request().model(), &attempt_.token(),
                                       &attempt_.pulse().work());
    attempt_.pulse().work().Count();
    if (loaded.ok()) {
      if (loaded->loaded_now) {
        stages_.push_back(convert::FromEngine(loaded->model->load_stats()));
      }
      *model = std::move(loaded->model);
      return std::nullopt;
    }
    const absl::Status& error = loaded.status();
    if (context_.engine.device_lost()) return Failure{v1::AttemptFailed::DEVICE_LOST, error};
    if (std::optional<Failure> stopped = StopFailure(attempt_)) return stopped;
    switch (error.code()) {
      case absl::StatusCode::kResourceExhausted:
        return Failure{v1::AttemptFailed::OUT_OF_MEMORY, error};
      // Reading failed, or took too long, which may pass; everything else is in the files.
      case absl::StatusCode::kInternal:
      case absl::StatusCode::kUnavailable:
      case absl::StatusCode::kDeadlineExceeded:
      case absl::StatusCode::kUnknown:
        return Failure{v1::AttemptFailed::INTERNAL, error};
      default:
        return Failure{v1::AttemptFailed::MODEL, error};
    }
  }

  std::optional<Failure> DecodeConditions(const engine::Request& request,
                                          std::vector<engine::MediaInput>* media) {
    const auto& files = attempt_.command().condition_files();
    if (static_cast<size_t>(files.size()) != request.conditions.size()) {
      return Failure{v1::AttemptFailed::INTERNAL,
                     absl::InternalError(absl::StrCat("the start command names ", files.size(),
                                                      " condition files for ",
                                                      request.conditions.size(), " conditions"))};
    }
    if (files.empty()) return std::nullopt;
    PublishStage(v1::ENCODE_MEDIA);
    media::DecodeOptions options = context_.decode_options;
    options.cancel = &attempt_.token();
    for (int i = 0; i < files.size(); ++i) {
      auto decoded =
          context_.decode(files[i], request.conditions[static_cast<size_t>(i)].kind, options);
      attempt_.pulse().work().Count();
      if (!decoded.ok()) {
        if (std::optional<Failure> stopped = StopFailure(attempt_)) return stopped;
        // The file's own path says nothing to the caller.
        const absl::Status error(
            decoded.status().code(),
            absl::StrCat("conditions[", i, "]: ", std::string(decoded.status().message())));
        return Failure{DecodeCause(error), error};
      }
      media->push_back(*std::move(decoded));
    }
    return std::nullopt;
  }

  absl::Status Drive(engine::Run& run) {
    while (true) {
      absl::StatusOr<bool> more = run.Advance();
      context_.measure_memory();
      if (!more.ok()) return more.status();
      if (!*more) return absl::OkStatus();
      PublishProgress(run.progress());
      // A run that ignores its token between steps is stopped here.
      if (absl::Status status = attempt_.token().Check(); !status.ok()) return status;
    }
  }

  Failure RunFailure(const absl::Status& error) {
    if (context_.engine.device_lost()) return Failure{v1::AttemptFailed::DEVICE_LOST, error};
    if (!spool_error_.ok()) return SpoolFailure(spool_error_);
    if (std::optional<Failure> stopped = StopFailure(attempt_)) return *stopped;
    switch (error.code()) {
      case absl::StatusCode::kResourceExhausted:
        return Failure{v1::AttemptFailed::OUT_OF_MEMORY, error};
      case absl::StatusCode::kInvalidArgument:
      case absl::StatusCode::kOutOfRange:
      case absl::StatusCode::kUnimplemented:
      // A plan that this device cannot carry out.
      case absl::StatusCode::kFailedPrecondition:
        return Failure{v1::AttemptFailed::CLIENT, error};
      default:
        return Failure{v1::AttemptFailed::INTERNAL, error};
    }
  }

  // On the run's encoder thread; between the attempt's first and last event it alone appends.
  absl::Status TakeBytes(std::string_view bytes) {
    while (!bytes.empty()) {
      const std::string_view piece = bytes.substr(0, kMaxChunkBytes);
      bytes.remove_prefix(piece.size());
      v1::AttemptEvent event;
      event.mutable_chunk()->set_offset(size_);
      event.mutable_chunk()->set_data(std::string(piece));
      KINO_FAULT_POINT("worker.chunk.before_spool");
      if (absl::Status status = Emit(std::move(event)); !status.ok()) {
        spool_error_ = status;
        return status;
      }
      KINO_FAULT_POINT("worker.chunk.spooled");
      digest_.Update(piece.data(), piece.size());
      size_ += static_cast<int64_t>(piece.size());
    }
    return absl::OkStatus();
  }

  std::optional<Failure> SendDone(const engine::RunResult& result) {
    v1::AttemptEvent event;
    v1::AttemptDone* done = event.mutable_done();
    *done->mutable_artifact() = convert::ToArtifact(result, size_, digest_.Hex());
    for (const v1::StageStats& stage : stages_) *done->add_stages() = stage;
    for (const engine::StageStats& stage : result.stages) {
      *done->add_stages() = convert::FromEngine(stage);
    }
    done->mutable_step_seconds()->Assign(result.step_seconds.begin(), result.step_seconds.end());
    done->set_first_chunk_seconds(result.first_chunk_seconds);
    *done->mutable_plan() = convert::FromEngine(result.plan);
    done->set_weights_sha256(context_.models.WeightsSha256(attempt_.command().request().model()));
    KINO_FAULT_POINT("worker.done.before_spool");
    // Before the event can be sent: the next start command may follow it at once.
    attempt_.MarkEnded();
    if (absl::Status status = attempt_.spool().Append(std::move(event)); !status.ok())
      return SpoolFailure(status);
    KINO_FAULT_POINT("worker.done.spooled");
    return std::nullopt;
  }

  absl::Status Emit(v1::AttemptEvent event) {
    absl::Status status = attempt_.spool().Append(std::move(event));
    context_.notify();
    return status;
  }

  void PublishStage(v1::Stage stage) {
    attempt_.pulse().Enter(stage);
    v1::Progress progress;
    progress.set_attempt(attempt_.ref().attempt());
    progress.set_pass(1);
    progress.set_total_passes(1);
    progress.set_stage(stage);
    attempt_.SetProgress(std::move(progress));
    context_.notify();
  }

  void PublishProgress(const engine::RunProgress& progress) {
    const absl::Duration now = context_.clock.Monotonic();
    if (progress.stage == last_stage_ && now < last_progress_ + kProgressInterval) return;
    last_stage_ = progress.stage;
    last_progress_ = now;
    attempt_.SetProgress(convert::FromEngine(progress, attempt_.ref().attempt()));
    context_.notify();
  }

  const AttemptContext& context_;
  HeldAttempt& attempt_;
  digest::Sha256 digest_;
  int64_t size_ = 0;
  absl::Status spool_error_;
  std::vector<v1::StageStats> stages_;
  std::optional<engine::Stage> last_stage_;
  absl::Duration last_progress_ = -absl::InfiniteDuration();
};

}  // namespace

void RunAttempt(const AttemptContext& context, HeldAttempt& attempt) {
  AttemptRun(context, attempt).Run();
}

}  // namespace kino::worker
