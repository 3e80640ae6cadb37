#include "engine/planned_run.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/device.h"
#include "engine/core/device_work_counter.h"
#include "engine/core/log.h"
#include "engine/core/memory_counter.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/ops/video_frames.h"

namespace kino::engine {
namespace {

// The limits of a plan while it lives: they are the process's, and other runs have their own.
class MemoryLimits {
 public:
  MemoryLimits(c10::Device device, const Plan& plan) : device_(device) {
    const DeviceSpec limits = LimitedBy({.is_gpu = device.is_cuda()}, plan);
    limits_device_ = limits.device_bytes > 0;
    if (limits_device_) LimitDeviceMemory(device, limits.device_bytes);
    if (device.is_cuda()) SetHostMemoryLimit(limits.host_bytes);
  }
  ~MemoryLimits() {
    SetHostMemoryLimit(0);
    try {
      if (limits_device_) LimitDeviceMemory(device_, 0);
    } catch (const std::exception&) {  // The device failed: the step's own error says so.
    }
  }
  MemoryLimits(const MemoryLimits&) = delete;
  MemoryLimits& operator=(const MemoryLimits&) = delete;

 private:
  c10::Device device_;
  bool limits_device_ = false;
};

}  // namespace

PlannedRun::PlannedRun(PlannedRunOptions planned, std::vector<MediaInput> media, RunOptions options)
    : planned_(std::move(planned)),
      options_(std::move(options)),
      run_(planned_.pipeline->Start(planned_.request, std::move(media), options_.tap)),
      recorder_(planned_.device),
      counter_(MakeWorkCounter(planned_.device)) {
  progress_.stage = run_->position().stage;
  progress_.total_steps = run_->position().total_steps;
  progress_.total_passes = run_->position().total_passes;
  pulse_.stage = progress_.stage;
  weights_.emplace(planned_.pipeline, planned_.plan);
  const VideoSize size = planned_.description->details->OutputOf(planned_.request);
  result_.width = size.width;
  result_.height = size.height;
  result_.fps = *planned_.request.fps;
  result_.plan = planned_.plan;
}

absl::Status PlannedRun::Open() {
  if (!options_.output.mp4) return absl::OkStatus();
  const Request& request = planned_.request;
  Mp4Options mp4{.width = result_.width, .height = result_.height, .fps = *request.fps};
  mp4.lossless = request.output.lossless;
  if (planned_.device.is_cuda()) {
    mp4.encoder = H264Encoder::kNvencIfPresent;
    mp4.gpu = planned_.device.index();
  }
  if (request.output.quality) mp4.quality = *request.output.quality;
  KINO_ASSIGN_OR_RETURN(
      std::unique_ptr<Mp4Writer> writer,
      Mp4Writer::Create(mp4, [this](std::string_view bytes) { return Emit(bytes); }));
  encoder_ = std::make_unique<EncoderThread>(std::move(writer));
  return absl::OkStatus();
}

absl::Status PlannedRun::Step(size_t index) {
  const std::vector<PipelineRun::StageShare> stages = run_->stages();
  const Stage stage = stages[index].stage;
  std::optional<Stage> next;
  if (index + 1 < stages.size()) next = stages[index + 1].stage;
  if (index != stage_) {
    stage_ = index;
    frames_before_stage_ = result_.num_frames;
  }
  const RunContext context{.cancel = options_.cancel,
                           .counter = counter_.get(),
                           .chunk_feed_forward = planned_.plan.chunk_feed_forward.value_or(0)};
  // Before the stage's memory is counted.
  KINO_RETURN_IF_ERROR(RunGuarded(planned_.device, [&] {
    weights_->Approach(stage);
    return absl::OkStatus();
  }));
  return recorder_.Measure(stage, [&] {
    return RunGuarded(planned_.device, [&] {
      const MemoryLimits limits(planned_.device, planned_.plan);
      weights_->Enter(stage, next, context);
      run_->Advance(context, [this](const at::Tensor& pixels) { ThrowIfError(Deliver(pixels)); });
      return absl::OkStatus();
    });
  });
}

absl::StatusOr<bool> PlannedRun::Advance() {
  absl::StatusOr<bool> more = TryAdvance();
  if (!more.ok()) encoder_.reset();  // no byte leaves after an error
  return more;
}

absl::StatusOr<bool> PlannedRun::TryAdvance() {
  const PipelineRun::Position before = run_->position();
  if (before.done) return Finish();
  const std::shared_ptr<const TimeMark> begin = recorder_.Mark();
  const absl::Status status = Step(before.index);
  if (status.GetPayload(kOutOfMemoryPayload)) {
    KINO_RETURN_IF_ERROR(FallLower(before.stage, status));
    return true;
  }
  if (!status.ok()) {
    if (status.GetPayload(kDeviceLostPayload)) *planned_.device_lost = true;
    return status;
  }
  const PipelineRun::Position now = run_->position();
  recorder_.Since(begin, [this, before, now](double seconds) { Learn(before, now, seconds); });
  Report(now);
  return true;
}

absl::Status PlannedRun::FallLower(Stage stage, const absl::Status& out_of_memory) {
  const Planner planner(*planned_.description, planned_.request, planned_.profiles,
                        planned_.device_spec, planned_.allow_lossy);
  const auto fail = [&](const std::string& why) {
    std::string message = absl::StrCat("out of memory in ", StageName(stage), ": ",
                                       std::string(out_of_memory.message()), "; the plan");
    if (const auto estimate = planner.Estimate(planned_.plan); estimate.ok()) {
      absl::StrAppend(&message, " '", estimate->name, "' was predicted to need ",
                      estimate->peak_device, " bytes;");
    }
    return absl::ResourceExhaustedError(absl::StrCat(message, " ", why));
  };
  const std::string mode = planned_.asked.mode.value_or("");
  if (mode == "fastest" || mode == "smallest")
    return fail(absl::StrCat("no other is taken, since the plan asked for is '", mode, "'"));
  absl::StatusOr<PlanEstimate> lower = planner.NextLower(planned_.plan, planned_.asked, stage);
  // Tiles would change the picture halfway through the video.
  while (lower.ok() && result_.num_frames > 0 &&
         lower->plan.vae_tiling != planned_.plan.vae_tiling) {
    lower = planner.NextLower(lower->plan, planned_.asked, stage);
  }
  if (!lower.ok()) return fail(std::string(lower.status().message()));
  Log(LogLevel::kWarning, absl::StrCat("out of memory in ", StageName(stage),
                                       "; going on with the plan '", lower->name, "'"));
  planned_.plan = lower->plan;
  estimate_.reset();
  result_.plan = lower->plan;
  weights_->set_plan(lower->plan);
  run_->Retry(lower->plan);
  repeated_frames_ = result_.num_frames - frames_before_stage_;
  return RunGuarded([&] {
    ReleaseCachedMemory(planned_.device);
    return absl::OkStatus();
  });
}

absl::StatusOr<bool> PlannedRun::Finish() {
  weights_.reset();
  if (encoder_ != nullptr) {
    KINO_RETURN_IF_ERROR(recorder_.Measure(Stage::kMux, [this] { return encoder_->Finish(); }));
    encoder_.reset();
  }
  recorder_.Finish();
  result_.stages = recorder_.stages();
  {
    const absl::MutexLock lock(&pulse_mutex_);
    for (StageStats& stats : result_.stages) {
      stats.steps = step_times_.Count(stats.stage);
      stats.step_seconds = step_times_.Median(stats.stage);
    }
  }
  progress_.stage = options_.output.mp4 ? Stage::kMux : Stage::kDecode;
  progress_.step = progress_.total_steps = 1;
  progress_.fraction = 1;
  progress_.eta_seconds = 0;
  return false;
}

absl::Status PlannedRun::Emit(std::string_view bytes) {
  // A head without frames shows nothing.
  if (has_head_ && result_.first_chunk_seconds == 0)
    result_.first_chunk_seconds = SecondsSince(started_);
  has_head_ = true;
  result_.output_bytes += static_cast<int64_t>(bytes.size());
  return options_.output.mp4(bytes);
}

absl::Status PlannedRun::Deliver(const at::Tensor& all) {
  const int64_t repeated = std::min<int64_t>(repeated_frames_, all.size(0));
  repeated_frames_ -= static_cast<int>(repeated);
  if (repeated == all.size(0)) return absl::OkStatus();
  const at::Tensor pixels = all.narrow(0, repeated, all.size(0) - repeated);
  const Clock::time_point start = Clock::now();
  absl::Status status;
  if (options_.output.frames) {
    const at::Tensor frames = FramesAsFloats(pixels);
    if (result_.num_frames == 0) result_.first_chunk_seconds = SecondsSince(started_);
    status = options_.output.frames({.first_frame = result_.num_frames,
                                     .num_frames = static_cast<int>(frames.size(0)),
                                     .height = static_cast<int>(frames.size(1)),
                                     .width = static_cast<int>(frames.size(2)),
                                     .data = frames.const_data_ptr<float>()});
    result_.output_bytes += static_cast<int64_t>(frames.nbytes());
  } else {
    status = encoder_->Add(FramesAsBytes(pixels));
  }
  result_.num_frames += static_cast<int>(pixels.size(0));
  recorder_.Move(Stage::kDecode, Stage::kMux, SecondsSince(start));
  return status;
}

std::optional<double> PlannedRun::FlopsOf(size_t index) {
  if (!estimate_) {
    estimate_ = Planner(*planned_.description, planned_.request, planned_.profiles,
                        planned_.device_spec, planned_.allow_lossy)
                    .Estimate(planned_.plan);
  }
  if (!estimate_->ok()) return std::nullopt;
  const std::vector<PipelineRun::StageShare> stages = run_->stages();
  const Stage stage = stages[index].stage;
  double flops = 0, shares = 0;
  for (const StageEstimate& each : (*estimate_)->stages) {
    if (each.stage == stage) flops += each.flops;
  }
  for (const PipelineRun::StageShare& each : stages) {
    if (each.stage == stage) shares += each.share;
  }
  return flops * stages[index].share / shares;
}

std::optional<double> PlannedRun::SecondsLeft(const PipelineRun::Position& now) {
  if (now.done) return 0;
  const std::vector<PipelineRun::StageShare> stages = run_->stages();
  double seconds = 0;
  for (size_t index = now.index; index < stages.size(); ++index) {
    const double left =
        index == now.index ? 1 - static_cast<double>(now.step) / now.total_steps : 1;
    const std::optional<double> flops = FlopsOf(index);
    if (!flops) return std::nullopt;
    const std::optional<double> each =
        planned_.compute_rate->Seconds(stages[index].stage, left * *flops);
    if (!each) return std::nullopt;
    seconds += *each;
  }
  return seconds;
}

void PlannedRun::Learn(const PipelineRun::Position& before, const PipelineRun::Position& now,
                       double seconds) {
  {
    const absl::MutexLock lock(&pulse_mutex_);
    step_times_.Add(before.stage, seconds);
  }
  if (before.stage == Stage::kDenoise) result_.step_seconds.push_back(seconds);
  // A prompt may have been encoded before, so its stage tells nothing of the device.
  if (before.stage == Stage::kEncodeText || before.total_steps <= 0) return;
  const int end = now.index == before.index && !now.done ? now.step : before.total_steps;
  const double share = static_cast<double>(end - before.step) / before.total_steps;
  planned_.compute_rate->Add(before.stage, share * FlopsOf(before.index).value_or(0), seconds);
}

RunPulse PlannedRun::pulse() const {
  const absl::MutexLock lock(&pulse_mutex_);
  RunPulse pulse = pulse_;
  pulse.counter = counter_->done();
  pulse.step_seconds = step_times_.Median(pulse.stage);
  return pulse;
}

void PlannedRun::Report(const PipelineRun::Position& now) {
  {
    const absl::MutexLock lock(&pulse_mutex_);
    pulse_.stage = now.stage;
    pulse_.steps = now.step;
  }
  progress_.pass = now.pass;
  progress_.stage = now.stage;
  progress_.step = now.step;
  progress_.total_steps = now.total_steps;
  progress_.fraction = std::max(progress_.fraction, now.fraction);
  progress_.eta_seconds = SecondsLeft(now);
  if (!progress_.eta_seconds && !result_.step_seconds.empty()) {
    const double elapsed = SecondsSince(started_);
    progress_.eta_seconds = elapsed * (1 - progress_.fraction) / progress_.fraction;
  }
}

}  // namespace kino::engine
