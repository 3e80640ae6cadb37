#include "engine/engine.h"

#include <ATen/Parallel.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/compute_rate.h"
#include "engine/core/device.h"
#include "engine/core/log.h"
#include "engine/core/machine.h"
#include "engine/core/memory_counter.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/core/torch_types.h"
#include "engine/device_check.h"
#include "engine/models/registry.h"
#include "engine/planned_run.h"
#include "engine/stage_recorder.h"
#include "engine/trace/tracer.h"

namespace kino::engine {
namespace {

// What every model of an engine shares.
struct EngineState {
  c10::Device device{c10::DeviceType::CPU};
  EngineShared shared;
  ComputeRate compute_rate;
  bool device_lost = false;
};

absl::Status Lost() {
  return absl::InternalError("the device failed earlier; this process must end");
}

// Fields that say where weights are have a value in what runs and is reported.
Plan Explicit(Plan plan) {
  plan.mode.reset();
  if (!plan.offload) plan.offload = "none";
  if (!plan.weights_home) plan.weights_home = "file";
  return plan;
}

class ModelImpl final : public Model {
 public:
  ModelImpl(std::shared_ptr<EngineState> engine, ModelDescription description, ModelOptions options)
      : engine_(std::move(engine)),
        description_(std::make_shared<const ModelDescription>(std::move(description))),
        options_(std::move(options)),
        dtype_(options_.dtype.On(engine_->device.is_cuda())),
        profiles_(ProfilesOf(*description_, dtype_, engine_->device.is_cuda())) {}

  absl::Status Load(const RunContext& context) {
    StageRecorder recorder(engine_->device);
    const absl::Status status = recorder.Measure(Stage::kLoad, [&]() -> absl::Status {
      const PipelineOptions files{.folder = options_.folder,
                                  .original_files = options_.original_files,
                                  .variant = options_.variant,
                                  .dtype = dtype_,
                                  .device = engine_->device,
                                  .pipeline_class = description_->pipeline_class,
                                  .context = context};
      KINO_ASSIGN_OR_RETURN(pipeline_, LoadPipeline(description_->family, files, engine_->shared));
      // A plan that depends on the request is carried out when there is one; so is one that a limit
      // may yet lower.
      const Plan& asked = options_.plan;
      if (asked.mode || asked.max_device_memory || asked.max_host_memory) return absl::OkStatus();
      for (const PipelineComponent& each : pipeline_->components()) {
        const absl::Status configured = RunGuarded(engine_->device, [&] {
          const auto plan = WeightPlanOf(options_.plan, each.name, each.is_autoencoder);
          ThrowIfError(plan.status());
          each.component->residency().Configure(*plan, context);
          return absl::OkStatus();
        });
        if (!configured.ok()) return LoadError(each, configured);
      }
      return absl::OkStatus();
    });
    recorder.Finish();
    load_stats_ = recorder.stages().front();
    if (status.GetPayload(kDeviceLostPayload)) engine_->device_lost = true;
    return status;
  }

  const ModelDescription& description() const override { return *description_; }
  const StageStats& load_stats() const override { return load_stats_; }

  absl::StatusOr<std::unique_ptr<Run>> Start(const Request& request, std::vector<MediaInput> media,
                                             RunOptions options) override {
    if (engine_->device_lost) return Lost();
    const ResolvedRequest resolved = ResolveRequest(*description_, request, /*draw_seed=*/0);
    if (!request.seed) return absl::InvalidArgumentError("seed: an effective request has one");
    KINO_RETURN_IF_ERROR(FirstViolation(resolved.violations));
    KINO_RETURN_IF_ERROR(CheckMedia(request, media));
    KINO_RETURN_IF_ERROR(CutMedia(resolved.request, media));
    if ((options.output.mp4 != nullptr) == (options.output.frames != nullptr)) {
      return absl::InvalidArgumentError("output: expected exactly one of mp4 and frames");
    }
    PlannedRunOptions planned{.description = description_,
                              .pipeline = pipeline_,
                              .request = resolved.request,
                              .plan = {},
                              .asked = MergePlans(options_.plan, request.plan),
                              .allow_lossy = options_.allow_lossy,
                              .profiles = profiles_,
                              .device = engine_->device,
                              .compute_rate = &engine_->compute_rate,
                              .device_lost = &engine_->device_lost};
    KINO_ASSIGN_OR_RETURN(planned.device_spec, Spec(planned.asked));
    if (planned.asked.mode || planned.asked.max_device_memory || planned.asked.max_host_memory) {
      const Planner planner(*description_, resolved.request, profiles_, planned.device_spec,
                            options_.allow_lossy);
      KINO_ASSIGN_OR_RETURN(const PlanEstimate chosen, planner.Choose(planned.asked));
      planned.plan = Explicit(chosen.plan);
    } else {
      planned.plan = Explicit(planned.asked);
    }
    planned.request.plan = planned.plan;
    std::unique_ptr<PlannedRun> run;
    KINO_RETURN_IF_ERROR(RunGuarded(engine_->device, [&] {
      run = std::make_unique<PlannedRun>(std::move(planned), std::move(media), std::move(options));
      return absl::OkStatus();
    }));
    KINO_RETURN_IF_ERROR(run->Open());
    return run;
  }

 private:
  // What ran out while this component's weights were brought.
  static absl::Status LoadError(const PipelineComponent& component, const absl::Status& error) {
    if (!error.GetPayload(kOutOfMemoryPayload)) return error;
    int64_t bytes = 0;
    for (const auto& weight : component.component->weights().weights()) bytes += weight->bytes();
    return absl::ResourceExhaustedError(
        absl::StrCat("out of memory loading '", component.name, "', whose weights take ", bytes,
                     " bytes under this plan: ", std::string(error.message())));
  }
  static absl::Status CheckMedia(const Request& request, const std::vector<MediaInput>& media) {
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
    return absl::OkStatus();
  }

  // To the first frames, where only those of a video are used.
  static absl::Status CutMedia(const Request& request, std::vector<MediaInput>& media) {
    for (size_t i = 0; i < media.size(); ++i) {
      const std::optional<int>& frames = request.conditions[i].num_frames;
      if (!frames) continue;
      MediaInput& video = media[i];
      if (*frames > video.num_frames) {
        return absl::InvalidArgumentError(absl::StrCat("conditions[", i, "]: the video has ",
                                                       video.num_frames, " frames, expected ",
                                                       *frames, " or more"));
      }
      video.num_frames = *frames;
      video.rgb.resize(size_t{3} * video.width * video.height * video.num_frames);
    }
    return absl::OkStatus();
  }

  // What this device has, under the limits of `plan`.
  absl::StatusOr<DeviceSpec> Spec(const Plan& plan) const {
    DeviceSpec spec{.is_gpu = engine_->device.is_cuda()};
    KINO_RETURN_IF_ERROR(RunGuarded([&] {
      spec.device_bytes = GetDeviceInfo(engine_->device).available_bytes;
      spec.host_bytes = GetDeviceInfo(c10::Device(c10::DeviceType::CPU)).available_bytes;
      return absl::OkStatus();
    }));
    return LimitedBy(spec, plan);
  }

  std::shared_ptr<EngineState> engine_;
  std::shared_ptr<const ModelDescription> description_;
  ModelOptions options_;
  ComputeDTypes dtype_;
  std::shared_ptr<ProfileSource> profiles_;
  std::shared_ptr<Pipeline> pipeline_;
  StageStats load_stats_{.stage = Stage::kLoad};
};

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(c10::Device device) : state_(std::make_shared<EngineState>()) {
    state_->device = device;
  }

  absl::StatusOr<std::shared_ptr<Model>> Load(const ModelOptions& options,
                                              const CancelToken* cancel,
                                              WorkCounter* counter) override {
    if (state_->device_lost) return Lost();
    const RunContext context{.cancel = cancel, .counter = counter};
    KINO_RETURN_IF_ERROR(context.Advance());
    KINO_ASSIGN_OR_RETURN(ModelDescription description,
                          DescribeModel(options.folder, options.original_files, options.variant));
    KINO_RETURN_IF_ERROR(options.dtype.Check(description.WeightedComponents()));
    if (const auto plain = description.ComponentsWithoutVariant(); !plain.empty()) {
      Log(LogLevel::kWarning,
          absl::StrCat("'", options.folder, "': no weights of variant '", options.variant, "' for ",
                       absl::StrJoin(plain, ", "), "; the plain ones are read"));
    }
    std::vector<FieldViolation> violations;
    CheckWeightPlan(options.plan, description.WeightedComponents(), violations);
    KINO_RETURN_IF_ERROR(FirstViolation(violations));
    auto model = std::make_shared<ModelImpl>(state_, std::move(description), options);
    KINO_RETURN_IF_ERROR(model->Load(context));
    return model;
  }

  absl::Status CheckDevice() override {
    if (state_->device_lost) return Lost();
    const absl::Status status = engine::CheckDevice(state_->device);
    if (status.GetPayload(kDeviceLostPayload)) state_->device_lost = true;
    return status;
  }

  absl::StatusOr<std::shared_ptr<ProfileSource>> Profiles(
      const ModelOptions& options) const override {
    KINO_ASSIGN_OR_RETURN(const ModelDescription description,
                          DescribeModel(options.folder, options.original_files, options.variant));
    return ProfilesOf(description, options.dtype, state_->device.is_cuda());
  }
  std::string device_name() const override { return GetDeviceInfo(state_->device).name; }
  int64_t device_memory_bytes() const override { return GetDeviceInfo(state_->device).total_bytes; }
  int64_t device_memory_used_bytes() const override {
    // Asked for the statistics of a worker whose device may have failed.
    int64_t bytes = 0;
    (void)RunGuarded([&] {
      bytes = GetDeviceInfo(state_->device).used_bytes;
      return absl::OkStatus();
    });
    return bytes;
  }
  bool device_lost() const override { return state_->device_lost; }

 private:
  std::shared_ptr<EngineState> state_;
};

// Asks `traced` about effective requests only, whatever it is asked about.
class ResolvedProfiles final : public ProfileSource {
 public:
  ResolvedProfiles(ModelDescription description, std::shared_ptr<ProfileSource> traced)
      : description_(std::move(description)), traced_(std::move(traced)) {}
  absl::StatusOr<RunProfile> Profile(const Request& request,
                                     const std::vector<PhaseVariant>& variants) override {
    const ResolvedRequest resolved = ResolveRequest(description_, request, /*draw_seed=*/0);
    KINO_RETURN_IF_ERROR(FirstViolation(resolved.violations));
    return traced_->Profile(resolved.request, variants);
  }

 private:
  const ModelDescription description_;
  const std::shared_ptr<ProfileSource> traced_;
};

}  // namespace

std::shared_ptr<ProfileSource> ProfilesOf(const ModelDescription& description,
                                          const ComputeDTypes& dtype, bool on_gpu) {
  return std::make_shared<ResolvedProfiles>(
      description, MakeTracer({.family = description.family,
                               .folder = description.folder,
                               .pipeline_class = description.pipeline_class,
                               .original_files = description.original_files,
                               .variant = description.variant,
                               .dtype = dtype.On(on_gpu),
                               .on_gpu = on_gpu}));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options) {
  if (options.threads < 0 || options.threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads ", options.threads, ", expected 0 to 1024"));
  }
  KINO_ASSIGN_OR_RETURN(const c10::Device device, OpenDevice(options.device));
  InstallMemoryCounter();
  KeepFloat32();
  at::set_num_threads(options.threads > 0 ? options.threads : DefaultThreads(UsableCores()));
  return std::make_unique<EngineImpl>(device);
}

}  // namespace kino::engine
