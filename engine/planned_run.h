// A run of a pipeline under a plan: keeps the clock and the memory statistics, moves the weights
// from stage to stage, falls one plan lower when memory runs out, and muxes what comes out. One
// thread, but for the pulse.
#pragma once

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/compute_rate.h"
#include "engine/core/work_counter.h"
#include "engine/describe/plan.h"
#include "engine/encoder_thread.h"
#include "engine/engine.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/common/stage_weights.h"
#include "engine/stage_recorder.h"
#include "engine/step_times.h"

namespace kino::engine {

struct PlannedRunOptions {
  std::shared_ptr<const ModelDescription> description;
  std::shared_ptr<Pipeline> pipeline;
  Request request;  // effective
  // What runs first; explicit, without a mode.
  Plan plan;
  // What was asked for: a lower plan keeps it. Its mode says whether there may be one.
  Plan asked;
  bool allow_lossy = false;
  std::shared_ptr<ProfileSource> profiles;
  DeviceSpec device_spec = {};
  c10::Device device{c10::DeviceType::CPU};
  ComputeRate* compute_rate = nullptr;  // of the device; runs add to it
  bool* device_lost = nullptr;
};

class PlannedRun final : public Run {
 public:
  PlannedRun(PlannedRunOptions planned, std::vector<MediaInput> media, RunOptions options);

  // Before the first Advance.
  absl::Status Open();
  absl::StatusOr<bool> Advance() override;
  const RunProgress& progress() const override { return progress_; }
  RunPulse pulse() const override;
  const RunResult& result() const override { return result_; }

 private:
  absl::StatusOr<bool> TryAdvance();
  // Of the stage with this index.
  absl::Status Step(size_t index);
  // OK when a lower plan is in force; else `out_of_memory` with need and have.
  absl::Status FallLower(Stage stage, const absl::Status& out_of_memory);
  absl::StatusOr<bool> Finish();
  // On the encoder's thread, but for the file's head.
  absl::Status Emit(std::string_view bytes);
  // pixels: as a FrameSink gets them.
  absl::Status Deliver(const at::Tensor& pixels);
  // An Advance took the device so many seconds; told when it has done that work.
  void Learn(const PipelineRun::Position& before, const PipelineRun::Position& now, double seconds);
  void Report(const PipelineRun::Position& now);
  // Of the whole stage with this index; nullopt: the run cannot be traced. Estimates know kinds of
  // stages: where one comes more than once, each has its share.
  std::optional<double> FlopsOf(size_t index);
  std::optional<double> SecondsLeft(const PipelineRun::Position& now);

  PlannedRunOptions planned_;
  RunOptions options_;
  std::unique_ptr<PipelineRun> run_;
  std::optional<StageWeights> weights_;
  StageRecorder recorder_;
  const std::unique_ptr<WorkCounter> counter_;
  Clock::time_point started_ = Clock::now();
  size_t stage_ = 0;             // of the last step, by its place in the run
  int frames_before_stage_ = 0;  // that had gone out when it began
  int repeated_frames_ = 0;      // of a decode started over, that have gone out already
  std::optional<absl::StatusOr<PlanEstimate>> estimate_;  // made once it is asked for
  RunProgress progress_;
  RunResult result_;
  mutable absl::Mutex pulse_mutex_;
  RunPulse pulse_ ABSL_GUARDED_BY(pulse_mutex_);  // without counter and seconds
  StepTimes step_times_ ABSL_GUARDED_BY(pulse_mutex_);
  bool has_head_ = false;                   // the MP4's head has gone out
  std::unique_ptr<EncoderThread> encoder_;  // last: its thread uses the others
};

}  // namespace kino::engine
