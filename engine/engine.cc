#include "engine/engine.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <atomic>
#include <chrono>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/core/device.h"
#include "engine/core/memory_counter.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/core/torch_types.h"
#include "engine/media/mp4_writer.h"
#include "engine/models/registry.h"

namespace kino::engine {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Seconds and peaks of the stages of one run, in the order they were entered.
class StageRecorder {
 public:
  explicit StageRecorder(c10::Device device) : device_(device) {}

  // Memory of `body` is counted from here on for `stage`.
  template <typename Body>
  absl::Status Measure(Stage stage, const Body& body) {
    ResetDevicePeak(device_);
    ResetHostMemoryPeak();
    const Clock::time_point start = Clock::now();
    const absl::Status status = body();
    StageStats& stats = Of(stage);
    stats.seconds += SecondsSince(start);
    stats.peak_device_bytes = std::max(stats.peak_device_bytes, DevicePeakBytes(device_));
    stats.peak_host_bytes = std::max(stats.peak_host_bytes, HostMemoryCount().peak_bytes);
    return status;
  }
  // Moves time that was spent on `stage` inside another one.
  void Move(Stage from, Stage to, double seconds) {
    Of(from).seconds -= seconds;
    Of(to).seconds += seconds;
  }
  const std::vector<StageStats>& stages() const { return stages_; }

 private:
  StageStats& Of(Stage stage) {
    for (StageStats& stats : stages_) {
      if (stats.stage == stage) return stats;
    }
    stages_.push_back({.stage = stage});
    return stages_.back();
  }

  c10::Device device_;
  std::vector<StageStats> stages_;
};

class RunImpl final : public Run {
 public:
  RunImpl(std::unique_ptr<PipelineRun> run, const Request& request, const Plan& plan,
          RunOptions options, c10::Device device, bool* device_lost)
      : run_(std::move(run)),
        request_(request),
        options_(std::move(options)),
        recorder_(device),
        on_gpu_(device.is_cuda()),
        device_lost_(device_lost) {
    result_.width = *request_.width;
    result_.height = *request_.height;
    result_.fps = *request_.fps;
    result_.plan = plan;
  }

  absl::Status Open() {
    if (!options_.output.mp4) return absl::OkStatus();
    Mp4Options mp4{.width = *request_.width, .height = *request_.height, .fps = *request_.fps};
    mp4.lossless = request_.output.lossless;
    if (on_gpu_) mp4.encoder = H264Encoder::kNvencIfPresent;
    if (request_.output.quality) mp4.quality = *request_.output.quality;
    KINO_ASSIGN_OR_RETURN(
        writer_, Mp4Writer::Create(mp4, [this](std::string_view bytes) { return Emit(bytes); }));
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Advance() override {
    const PipelineRun::Position before = run_->position();
    if (before.done) return Finish();
    const Clock::time_point start = Clock::now();
    const RunContext context{.cancel = options_.cancel, .counter = &counter_};
    const absl::Status status = recorder_.Measure(before.stage, [&] {
      return RunGuarded([&] {
        run_->Advance(context, [this](const at::Tensor& frames) { ThrowIfError(Deliver(frames)); });
        return absl::OkStatus();
      });
    });
    if (!status.ok()) {
      if (status.GetPayload(kDeviceLostPayload)) *device_lost_ = true;
      return status;
    }
    if (before.stage == Stage::kDenoise) result_.step_seconds.push_back(SecondsSince(start));
    Report();
    return true;
  }

  const RunProgress& progress() const override { return progress_; }
  uint64_t progress_counter() const override { return counter_.load(std::memory_order_relaxed); }
  const RunResult& result() const override { return result_; }

 private:
  absl::StatusOr<bool> Finish() {
    if (writer_ != nullptr) {
      KINO_RETURN_IF_ERROR(recorder_.Measure(Stage::kMux, [this] { return writer_->Finish(); }));
      writer_.reset();
    }
    result_.stages = recorder_.stages();
    progress_.stage = options_.output.mp4 ? Stage::kMux : Stage::kDecode;
    progress_.step = progress_.total_steps = 1;
    progress_.fraction = 1;
    progress_.eta_seconds = 0;
    return false;
  }

  absl::Status Emit(std::string_view bytes) {
    result_.output_bytes += static_cast<int64_t>(bytes.size());
    return options_.output.mp4(bytes);
  }

  // frames: [T, H, W, 3] float32 on the host.
  absl::Status Deliver(const at::Tensor& frames) {
    const Clock::time_point start = Clock::now();
    absl::Status status;
    if (options_.output.frames) {
      status = options_.output.frames({.first_frame = result_.num_frames,
                                       .num_frames = static_cast<int>(frames.size(0)),
                                       .height = static_cast<int>(frames.size(1)),
                                       .width = static_cast<int>(frames.size(2)),
                                       .data = frames.const_data_ptr<float>()});
      result_.output_bytes += static_cast<int64_t>(frames.nbytes());
    } else {
      const at::Tensor bytes = frames.mul(255.0).round_().to(at::kByte);
      const int64_t frame_bytes = bytes.stride(0);
      for (int64_t i = 0; i < bytes.size(0) && status.ok(); ++i) {
        status = writer_->AddFrame(bytes.const_data_ptr<uint8_t>() + i * frame_bytes);
      }
    }
    if (result_.num_frames == 0) result_.first_chunk_seconds = SecondsSince(started_);
    result_.num_frames += static_cast<int>(frames.size(0));
    recorder_.Move(Stage::kDecode, Stage::kMux, SecondsSince(start));
    return status;
  }

  void Report() {
    const PipelineRun::Position now = run_->position();
    progress_.stage = now.stage;
    progress_.step = now.step;
    progress_.total_steps = now.total_steps;
    progress_.fraction = std::max(progress_.fraction, now.fraction);
    // The first denoise step is the first thing worth extrapolating from.
    if (!result_.step_seconds.empty()) {
      const double elapsed = SecondsSince(started_);
      progress_.eta_seconds = elapsed * (1 - progress_.fraction) / progress_.fraction;
    }
  }

  std::unique_ptr<PipelineRun> run_;
  Request request_;
  RunOptions options_;
  StageRecorder recorder_;
  bool on_gpu_;
  bool* device_lost_;
  std::unique_ptr<Mp4Writer> writer_;
  std::atomic<uint64_t> counter_{0};
  Clock::time_point started_ = Clock::now();
  RunProgress progress_;
  RunResult result_;
};

// What every model of an engine shares.
struct EngineState {
  c10::Device device{c10::DeviceType::CPU};
  EngineShared shared;
  bool device_lost = false;
};

absl::Status Lost() {
  return absl::InternalError("the device failed earlier; this process must end");
}

class ModelImpl final : public Model {
 public:
  ModelImpl(std::shared_ptr<EngineState> engine, ModelDescription description,
            PipelineOptions options)
      : engine_(std::move(engine)),
        description_(std::move(description)),
        options_(std::move(options)),
        configured_offload_(options_.residency.ToString()) {}

  absl::Status Load() {
    StageRecorder recorder(engine_->device);
    const absl::Status status = recorder.Measure(Stage::kLoad, [this]() -> absl::Status {
      KINO_ASSIGN_OR_RETURN(pipeline_,
                            LoadPipeline(description_.family, options_, engine_->shared));
      return absl::OkStatus();
    });
    load_stats_ = recorder.stages().front();
    return status;
  }

  const ModelDescription& description() const override { return description_; }
  const StageStats& load_stats() const override { return load_stats_; }

  absl::StatusOr<std::unique_ptr<Run>> Start(const Request& request, std::vector<MediaInput> media,
                                             RunOptions options) override {
    if (engine_->device_lost) return Lost();
    const ResolvedRequest resolved = ResolveRequest(description_, request, /*draw_seed=*/0);
    if (!request.seed) return absl::InvalidArgumentError("seed: an effective request has one");
    if (!resolved.violations.empty()) {
      const FieldViolation& first = resolved.violations.front();
      return absl::InvalidArgumentError(absl::StrCat(first.field, ": ", first.description));
    }
    if (media.size() != request.conditions.size()) {
      return absl::InvalidArgumentError(absl::StrCat("media: expected one for each of ",
                                                     request.conditions.size(), " conditions, got ",
                                                     media.size()));
    }
    for (size_t i = 0; i < media.size(); ++i) {
      const MediaInput& input = media[i];
      if (input.width < 1 || input.height < 1 || input.num_frames < 1 ||
          input.rgb.size() != size_t{3} * input.width * input.height * input.num_frames) {
        return absl::InvalidArgumentError(
            absl::StrCat("conditions[", i, "]: ", input.num_frames, " frames of ", input.width, "x",
                         input.height, " in ", input.rgb.size(), " bytes"));
      }
    }
    if ((options.output.mp4 != nullptr) == (options.output.frames != nullptr)) {
      return absl::InvalidArgumentError("output: expected exactly one of mp4 and frames");
    }
    // Another offload than the loaded one: the weights are taken up anew from the mapped file.
    KINO_ASSIGN_OR_RETURN(
        const ResidencyPolicy wanted,
        ResidencyPolicy::Parse(request.plan.offload.value_or(configured_offload_)));
    if (wanted.ToString() != options_.residency.ToString()) {
      pipeline_.reset();
      options_.residency = wanted;
    }
    if (pipeline_ == nullptr) KINO_RETURN_IF_ERROR(Load());
    std::unique_ptr<PipelineRun> run;
    KINO_RETURN_IF_ERROR(RunGuarded([&] {
      run = pipeline_->Start(resolved.request, std::move(media), options.tap);
      return absl::OkStatus();
    }));
    Plan plan = resolved.request.plan;
    plan.offload = options_.residency.ToString();
    auto started =
        std::make_unique<RunImpl>(std::move(run), resolved.request, plan, std::move(options),
                                  engine_->device, &engine_->device_lost);
    KINO_RETURN_IF_ERROR(started->Open());
    return started;
  }

 private:
  std::shared_ptr<EngineState> engine_;
  ModelDescription description_;
  PipelineOptions options_;  // what is loaded, or will be
  std::string configured_offload_;
  std::unique_ptr<Pipeline> pipeline_;
  StageStats load_stats_{.stage = Stage::kLoad};
};

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(c10::Device device) : state_(std::make_shared<EngineState>()) {
    state_->device = device;
  }

  absl::StatusOr<std::shared_ptr<Model>> Load(const ModelOptions& options,
                                              const CancelToken* cancel) override {
    if (state_->device_lost) return Lost();
    if (cancel != nullptr) KINO_RETURN_IF_ERROR(cancel->Check());
    KINO_ASSIGN_OR_RETURN(ModelDescription description, DescribeModel(options.folder));
    const DType dtype =
        options.dtype.value_or(state_->device.is_cpu() ? DType::kF32 : DType::kBF16);
    if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", DTypeName(dtype), ", expected F32, F16 or BF16"));
    }
    if (!options.variant.empty() && options.variant != "fp16" && options.variant != "bf16") {
      return absl::InvalidArgumentError(
          absl::StrCat("variant '", options.variant, "', expected 'fp16' or 'bf16'"));
    }
    KINO_ASSIGN_OR_RETURN(const ResidencyPolicy residency,
                          ResidencyPolicy::Parse(options.plan.offload.value_or("none")));
    auto model = std::make_shared<ModelImpl>(state_, std::move(description),
                                             PipelineOptions{.folder = options.folder,
                                                             .variant = options.variant,
                                                             .dtype = ToTorch(dtype),
                                                             .device = state_->device,
                                                             .residency = residency});
    KINO_RETURN_IF_ERROR(model->Load());
    return model;
  }

  std::string device_name() const override { return GetDeviceInfo(state_->device).name; }
  int64_t device_memory_bytes() const override { return GetDeviceInfo(state_->device).total_bytes; }
  int64_t device_memory_used_bytes() const override {
    return GetDeviceInfo(state_->device).used_bytes;
  }
  bool device_lost() const override { return state_->device_lost; }

 private:
  std::shared_ptr<EngineState> state_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  if (options.threads < 0 || options.threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads ", options.threads, ", expected 0 to 1024"));
  }
  KINO_ASSIGN_OR_RETURN(const c10::Device device, OpenDevice(options.device));
  InstallMemoryCounter();
  if (options.threads > 0) at::set_num_threads(options.threads);
  return std::make_unique<EngineImpl>(device);
}

}  // namespace kino::engine
