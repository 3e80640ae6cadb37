#include "engine/trace/tracer.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/core/torch_types.h"
#include "engine/core/trace.h"
#include "engine/models/registry.h"
#include "engine/ops/video_frames.h"
#include "engine/trace/meta_kernels.h"

namespace kino::engine {
namespace {

// Requests whose traces are kept: those that a search for what fits goes through.
constexpr size_t kTracesKept = 64;

DType DTypeOf(c10::ScalarType dtype) {
  for (const DType each : {DType::kF16, DType::kBF16}) {
    if (ToTorch(each) == dtype) return each;
  }
  return DType::kF32;
}

// Cuts the stages of a run into phases by the weights they read.
class PhaseRecorder {
 public:
  explicit PhaseRecorder(Trace& trace) : trace_(trace) {}

  // The one with this index in the run's list. Its first phase is what comes before any weight is
  // read: a stage's weights reach the device with the first of them.
  void StartStage(size_t index, Stage stage) {
    Flush();
    stages_.resize(index + 1);
    phases().push_back({.need = {.stage = stage, .component = "", .part = ""}});
    current_ = 0;
  }
  void Touch(const std::string& component, int64_t part_elements, const Weight& weight) {
    const std::string& part = weight.group->part();
    if (current().need.component != component || current().need.part != part) {
      Flush();
      Enter(component, part, part_elements);
      group_ = nullptr;
    }
    if (weight.group != group_) {
      group_ = weight.group;
      for (const Weight* each : group_->weights())
        current().read += static_cast<double>(Elements(*each));
    }
  }
  // The phase that is under way repeats: all of it that was not traced is like what was.
  void Repeat(double times) {
    Flush();
    current().repeats *= times;
  }
  // By the index of their stage; none of those that were not started.
  std::vector<std::vector<PhaseNeed>> Stages() {
    Flush();
    std::vector<std::vector<PhaseNeed>> stages;
    for (const std::vector<Phase>& phases : stages_) {
      std::vector<PhaseNeed>& needs = stages.emplace_back();
      for (const Phase& phase : phases) needs.push_back(NeedOf(phase));
    }
    return stages;
  }

  static int64_t Elements(const Weight& weight) {
    int64_t count = 1;
    for (const int64_t extent : weight.shape) count *= extent;
    return count;
  }

 private:
  struct Phase {
    PhaseNeed need;        // flops of all that was traced
    int64_t elements = 0;  // of its part's weights; 0: before any is read
    double read = 0;       // elements, each time a group is entered
    double repeats = 1;
  };

  static PhaseNeed NeedOf(const Phase& phase) {
    PhaseNeed need = phase.need;
    const double passes = phase.elements > 0 ? phase.read / static_cast<double>(phase.elements) : 1;
    need.linear_flops /= passes;
    need.attention_flops /= passes;
    need.convolution_flops /= passes;
    need.kernels = {};
    need.kernels.Add(phase.need.kernels, 1 / passes);
    need.passes = passes * phase.repeats;
    return need;
  }

  std::vector<Phase>& phases() { return stages_.back(); }
  Phase& current() { return phases()[current_]; }
  void Enter(const std::string& component, const std::string& part, int64_t part_elements) {
    const auto same = std::find_if(phases().begin(), phases().end(), [&](const Phase& each) {
      return each.need.component == component && each.need.part == part;
    });
    current_ = static_cast<size_t>(same - phases().begin());
    if (same != phases().end()) return;
    phases().push_back(
        {.need = {.stage = phases().front().need.stage, .component = component, .part = part},
         .elements = part_elements});
  }
  // What was counted belongs to the phase under way.
  void Flush() {
    if (stages_.empty()) return;
    const TraceCounts counts = trace_.counts();
    PhaseNeed& need = current().need;
    need.device_activations = std::max(need.device_activations, counts.device_peak);
    need.host_activations = std::max(need.host_activations, counts.host_peak);
    need.rows = std::max(need.rows, counts.rows);
    need.linear_flops += counts.linear_flops;
    need.attention_flops += counts.attention_flops;
    need.convolution_flops += counts.convolution_flops;
    need.kernels.Add(counts.kernels);
    trace_.Reset();
  }

  Trace& trace_;
  std::vector<std::vector<Phase>> stages_;
  size_t current_ = 0;  // of the last stage's phases
  const WeightGroup* group_ = nullptr;
};

// Tells the recorder of one component's weights.
class ComponentAudit final : public WeightAudit {
 public:
  ComponentAudit(const PipelineComponent& component, PhaseRecorder& recorder)
      : component_(component), recorder_(recorder) {
    for (const auto& group : component.component->weights().groups()) {
      for (const Weight* weight : group->weights())
        part_elements_[group->part()] += PhaseRecorder::Elements(*weight);
    }
    component_.component->set_audit(this);
  }
  ~ComponentAudit() override { component_.component->set_audit(nullptr); }
  ComponentAudit(const ComponentAudit&) = delete;
  ComponentAudit& operator=(const ComponentAudit&) = delete;
  void Touch(const Weight& weight) override {
    recorder_.Touch(component_.name, part_elements_[weight.group->part()], weight);
  }

 private:
  const PipelineComponent& component_;
  PhaseRecorder& recorder_;
  std::unordered_map<std::string, int64_t> part_elements_;
};

ComponentPlaces PlacesOf(const PipelineComponent& component) {
  ComponentPlaces places{.component = component.name, .weights = {}};
  const WeightSet& set = component.component->weights();
  std::unordered_map<const WeightGroup*, std::pair<int, int>> blocks;
  const auto& stacks = component.component->residency().stacks();
  for (size_t s = 0; s < stacks.size(); ++s) {
    for (size_t i = 0; i < stacks[s].size(); ++i)
      blocks[stacks[s][i]] = {static_cast<int>(s), static_cast<int>(i)};
  }
  for (const std::unique_ptr<Weight>& weight : set.weights()) {
    WeightPlace& place = places.weights.emplace_back();
    place.name = weight->name;
    place.part = weight->group->part();
    place.group = weight->group->name();
    if (const auto at = blocks.find(weight->group); at != blocks.end())
      std::tie(place.stack, place.block) = at->second;
    place.dtype = DTypeOf(weight->dtype);
    place.may_quantize = set.MayQuantize(*weight);
    place.may_cast = set.MayCast(*weight);
  }
  return places;
}

// The request as it is traced: without what changes neither shapes nor lengths.
Request TracedRequest(const Request& request) {
  Request traced = request;
  traced.seed = 0;
  traced.output = {};
  traced.plan = {};
  return traced;
}

class Tracer final : public ProfileSource {
 public:
  explicit Tracer(TracerOptions options) : options_(std::move(options)) {}

  absl::StatusOr<RunProfile> Profile(const Request& request,
                                     const std::vector<PhaseVariant>& variants) override {
    const std::lock_guard lock(mutex_);
    RunProfile profile;
    KINO_RETURN_IF_ERROR(RunGuarded([&] {
      ThrowIfError(Open());
      Traces& traces = TracesOf(TracedRequest(request));
      for (const PhaseVariant& variant : variants)
        profile.variants.emplace_back(variant, Phases(traces, variant));
      return absl::OkStatus();
    }));
    profile.places = places_;
    return profile;
  }

 private:
  // Phases of each stage, as the run lists them; what was not traced has none.
  using Stages = std::vector<std::vector<PhaseNeed>>;
  // What was traced of one request. Tiles change some stages, chunks others: each is traced by
  // itself.
  struct Traces {
    Request request;
    std::vector<std::pair<std::optional<VaeTiling>, Stages>> by_tiling;
    std::vector<std::pair<std::optional<int>, Stages>> by_chunk;
  };

  absl::Status Open() {
    if (pipeline_ != nullptr) return absl::OkStatus();
    InstallMetaKernels();
    KINO_ASSIGN_OR_RETURN(pipeline_, LoadPipeline(options_.family,
                                                  {.folder = options_.folder,
                                                   .original_files = options_.original_files,
                                                   .variant = options_.variant,
                                                   .dtype = options_.dtype,
                                                   .device = c10::Device(c10::DeviceType::Meta),
                                                   .pipeline_class = options_.pipeline_class},
                                                  shared_));
    auto places = std::make_shared<std::vector<ComponentPlaces>>();
    for (const PipelineComponent& each : pipeline_->components()) {
      places->push_back(PlacesOf(each));
      // Other forms than the dtype of computation are the planner's arithmetic.
      each.component->weights().HoldEmpty();
    }
    places_ = std::move(places);
    return absl::OkStatus();
  }

  Traces& TracesOf(const Request& request) {
    const auto found = std::find_if(traces_.begin(), traces_.end(),
                                    [&](const Traces& each) { return each.request == request; });
    if (found != traces_.end()) {
      traces_.splice(traces_.begin(), traces_, found);
    } else {
      traces_.push_front({.request = request, .by_tiling = {}, .by_chunk = {}});
      if (traces_.size() > kTracesKept) traces_.pop_back();
    }
    return traces_.front();
  }

  std::vector<PhaseNeed> Phases(Traces& traces, const PhaseVariant& variant) {
    const Stages& tiled = Find(traces.by_tiling, variant.vae_tiling, [&] {
      return Trace({.vae_tiling = variant.vae_tiling, .chunk_feed_forward = {}}, traces.request,
                   /*denoise=*/false);
    });
    const Stages& chunked = Find(traces.by_chunk, variant.chunk_feed_forward, [&] {
      return Trace({.vae_tiling = {}, .chunk_feed_forward = variant.chunk_feed_forward},
                   traces.request, /*denoise=*/true);
    });
    std::vector<PhaseNeed> phases;
    for (size_t i = 0; i < tiled.size(); ++i) {
      const std::vector<PhaseNeed>& stage = tiled[i].empty() ? chunked[i] : tiled[i];
      phases.insert(phases.end(), stage.begin(), stage.end());
    }
    return phases;
  }

  template <typename Key, typename Make>
  static const Stages& Find(std::vector<std::pair<Key, Stages>>& traced, const Key& key,
                            const Make& make) {
    for (const auto& [each, stages] : traced) {
      if (each == key) return stages;
    }
    traced.emplace_back(key, make());
    return traced.back().second;
  }

  // All stages but either the decode or the steps of denoising, of which one is traced.
  Stages Trace(const PhaseVariant& variant, const Request& request, bool denoise) {
    Request traced = request;
    traced.plan.vae_tiling = variant.vae_tiling;
    std::vector<MediaInput> media;
    for (const Condition& condition : request.conditions) {
      // Its pixels would not be looked at (ConditionFrames).
      media.push_back({.width = *request.width,
                       .height = *request.height,
                       .num_frames = condition.kind == ConditionKind::kImage ? 1
                                     : condition.num_frames                  ? *condition.num_frames
                                     : condition.size ? condition.size->num_frames
                                                      : *request.num_frames,
                       .rgb = {}});
    }
    ComputeTarget target = CpuTarget();
    if (options_.on_gpu) target = {.is_gpu = true};
    engine::Trace trace(target);
    PhaseRecorder recorder(trace);
    std::vector<std::unique_ptr<ComponentAudit>> audits;
    for (const PipelineComponent& each : pipeline_->components())
      audits.push_back(std::make_unique<ComponentAudit>(each, recorder));
    // Prompts are encoded anew.
    shared_.embeddings.Clear();
    const std::unique_ptr<PipelineRun> run = pipeline_->Start(traced, std::move(media), {});
    const RunContext context{.chunk_feed_forward = variant.chunk_feed_forward.value_or(0)};
    std::optional<size_t> index;
    while (!run->position().done) {
      const PipelineRun::Position before = run->position();
      if (before.index != index) {
        if (before.stage == Stage::kDenoise && !denoise) {
          run->SkipStage();
          continue;
        }
        if (before.stage == Stage::kDecode && denoise) {
          if (before.index + 1 == run->stages().size()) break;
          run->SkipStage();
          continue;
        }
        recorder.StartStage(before.index, before.stage);
        index = before.index;
      }
      // On a CPU the floats of kino-render's .npy, which need more memory than bytes. The bytes
      // that the encoder's thread holds of one chunk are not counted: it is done with them while
      // the next chunk is decoded, and they are little beside that.
      run->Advance(context, [](const at::Tensor& pixels) {
        RunsOnGpu(pixels) ? FramesAsBytes(pixels) : FramesAsFloats(pixels);
      });
      if (before.stage == Stage::kDenoise) {
        // The step, without what the first one prepares: every other is like it.
        recorder.Repeat(before.total_steps);
        if (run->position().index == before.index) run->SkipStage();
      }
    }
    Stages stages = recorder.Stages();
    shared_.embeddings.Clear();
    return stages;
  }

  const TracerOptions options_;
  std::mutex mutex_;
  EngineShared shared_;  // guarded by mutex_, as all below
  std::unique_ptr<Pipeline> pipeline_;
  std::shared_ptr<const std::vector<ComponentPlaces>> places_;
  std::list<Traces> traces_;  // the latest first
};

}  // namespace

std::shared_ptr<ProfileSource> MakeTracer(TracerOptions options) {
  return std::make_shared<Tracer>(std::move(options));
}

}  // namespace kino::engine
