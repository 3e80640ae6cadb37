#include "engine/describe/plan.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"
#include "engine/describe/machine_speed.h"
#include "engine/describe/weight_needs.h"
#include "engine/describe/weight_plan.h"

namespace kino::engine {
namespace {

// What a library keeps for itself on a GPU: cuBLAS's workspaces; cuDNN's for convolutions.
// Uncalibrated: no GPU has measured them yet.
constexpr int64_t kGpuMatmulWorkspace = int64_t{64} << 20;
constexpr int64_t kGpuConvolutionWorkspace = int64_t{256} << 20;
// Host memory between weights that are not page-locked and a GPU: two slabs, which an engine keeps
// from the first run that needs them (memory/staging_slabs.h), so it is counted for every run. (A
// tensor larger than one takes more.)
constexpr int64_t kStagingBytes = kStagingSlabs * kStagingSlabBytes;

// Rows that a product with an undecoded matrix takes at a time.
int64_t RowsAtOnce(QuantScheme scheme, bool is_gpu) {
  const bool is_dynamic = scheme == QuantScheme::kInt8Dyn || scheme == QuantScheme::kFp8Dyn;
  return is_gpu && is_dynamic ? kGpuDynamicRowsPerChunk : kInt8RowsPerChunk;
}

constexpr double kChunkedTime = 1.005;
// A lower plan is worth a try when it needs less by more than the prediction's error.
constexpr double kLowerBy = 0.98;

// Forms the planner may choose where a lossy one is allowed: storage_dtype, quantize.
constexpr std::pair<const char*, const char*> kLossyForms[] = {
    {"float8_e4m3fn", nullptr}, {nullptr, "int8wo"}, {nullptr, "nf4"}};
constexpr int kBlockCounts[] = {1, 2, 4, 8};
// Tokens at a time: enough rows for a matrix product, a small part of a video's.
constexpr int kFeedForwardChunk = 1024;
constexpr int kSmallTile = 256, kSmallTileStride = 192;

double GibiBytes(int64_t bytes) { return static_cast<double>(bytes) / (int64_t{1} << 30); }

std::string Size(int64_t bytes) {
  return bytes < int64_t{1} << 30 ? absl::StrFormat("%.0f MiB", GibiBytes(bytes) * 1024)
                                  : absl::StrFormat("%.1f GiB", GibiBytes(bytes));
}

int64_t Lesser(int64_t limit, const std::optional<int64_t>& other) {
  if (!other) return limit;
  return limit == 0 ? *other : std::min(limit, *other);
}

// Which plans come first, whatever their time: exact ones before lossy ones, and of each those
// without tiles, which change the picture a little.
int Rank(const PlanEstimate& estimate) {
  return (estimate.lossless ? 0 : 2) + (estimate.plan.vae_tiling ? 1 : 0);
}

struct PlanText {
  std::string offload;
  std::vector<std::string> more;
};

PlanText TextOf(const Plan& plan) {
  PlanText text{.offload = plan.offload.value_or("none"), .more = {}};
  if (plan.weights_home && *plan.weights_home != "file" && text.offload != "none")
    text.more.push_back(*plan.weights_home + " weights");
  if (plan.quantize && *plan.quantize != "none") text.more.push_back(*plan.quantize);
  if (plan.storage_dtype && *plan.storage_dtype != "none") text.more.push_back(*plan.storage_dtype);
  if (plan.vae_tiling) {
    const std::optional<int>& height = plan.vae_tiling->tile_sample_min_height;
    text.more.push_back(height ? absl::StrCat("VAE tiling of ", *height) : "VAE tiling");
  }
  if (plan.chunk_feed_forward) text.more.push_back("chunked feed-forward");
  return text;
}

std::string NameOf(const Plan& plan) {
  PlanText text = TextOf(plan);
  text.more.insert(text.more.begin(), text.offload == "none" ? "resident" : text.offload);
  return absl::StrJoin(text.more, " + ");
}

// "block:1 offload and VAE tiling"
std::string InWords(const Plan& plan) {
  PlanText text = TextOf(plan);
  text.more.insert(text.more.begin(),
                   text.offload == "none" ? "resident weights" : text.offload + " offload");
  if (text.more.size() == 1) return text.more[0];
  const std::string last = text.more.back();
  text.more.pop_back();
  return absl::StrCat(absl::StrJoin(text.more, ", "), " and ", last);
}

TimeClass ClassOf(double slowdown) {
  if (slowdown <= 1.02) return TimeClass::kSame;
  if (slowdown <= 1.1) return TimeClass::kLittleMore;
  if (slowdown <= 1.5) return TimeClass::kMore;
  if (slowdown <= 3) return TimeClass::kMuchMore;
  return TimeClass::kFarMore;
}

PhaseVariant VariantOf(const Plan& plan) {
  return {.vae_tiling = plan.vae_tiling, .chunk_feed_forward = plan.chunk_feed_forward};
}

}  // namespace

DeviceSpec LimitedBy(const DeviceSpec& spec, const Plan& plan) {
  DeviceSpec limited = spec;
  limited.device_bytes = Lesser(spec.device_bytes, plan.max_device_memory);
  limited.host_bytes = Lesser(spec.host_bytes, plan.max_host_memory);
  return limited;
}

const char* TimeClassName(TimeClass time_class) {
  switch (time_class) {
    case TimeClass::kSame:
      return "same";
    case TimeClass::kLittleMore:
      return "<= 1.1x";
    case TimeClass::kMore:
      return "<= 1.5x";
    case TimeClass::kMuchMore:
      return "<= 3x";
    case TimeClass::kFarMore:
      return "> 3x";
  }
  return "unknown";
}

const StageEstimate& PlanEstimate::peak_stage() const {
  return *std::max_element(
      stages.begin(), stages.end(),
      [](const StageEstimate& a, const StageEstimate& b) { return a.device() < b.device(); });
}

// What a profile says of the request, the weights of the checkpoint beside it.
struct Profiled {
  RunProfile profile;
  // Of the components that have weights.
  std::vector<ComponentWeights> components;
  const std::vector<PhaseNeed>& Phases(const PhaseVariant& variant) const {
    return *profile.Phases(variant);
  }
};

struct Planner::State {
  const ModelDescription* model;
  Request request;
  std::shared_ptr<ProfileSource> profiles;
  DeviceSpec device;
  bool allow_lossy;

  // With what all of `plans` need, and the run without any.
  absl::StatusOr<Profiled> ProfileOf(const std::vector<Plan>& plans) const;
  // The limits, `plan`'s own among them.
  bool Fits(const PlanEstimate& estimate) const;
  std::vector<Plan> Candidates(const Plan& base, int blocks) const;
  absl::StatusOr<PlanEstimate> Estimate(const Plan& plan, const Profiled& profiled) const;
  PlanEstimate Predict(const Plan& plan, const std::vector<WeightNeeds>& needs,
                       const Profiled& profiled) const;
  // Seconds with everything resident in the compute dtype.
  double ResidentSeconds(const Profiled& profiled) const;
};

Planner::Planner(const ModelDescription& model, const Request& request,
                 std::shared_ptr<ProfileSource> profiles, const DeviceSpec& device,
                 bool allow_lossy)
    : state_(std::make_shared<State>(State{.model = &model,
                                           .request = request,
                                           .profiles = std::move(profiles),
                                           .device = device,
                                           .allow_lossy = allow_lossy})) {}

absl::StatusOr<Profiled> Planner::State::ProfileOf(const std::vector<Plan>& plans) const {
  std::vector<PhaseVariant> variants = {{}};
  for (const Plan& plan : plans) {
    const PhaseVariant variant = VariantOf(plan);
    if (std::find(variants.begin(), variants.end(), variant) == variants.end())
      variants.push_back(variant);
  }
  Profiled profiled;
  KINO_ASSIGN_OR_RETURN(profiled.profile, profiles->Profile(request, variants));
  if (profiled.profile.places == nullptr)
    return absl::InternalError("the profile says nothing of the weights");
  for (const PhaseVariant& variant : variants) {
    const std::vector<PhaseNeed>* phases = profiled.profile.Phases(variant);
    if (phases == nullptr || phases->empty())
      return absl::InternalError("the profile lacks what was asked for");
    for (const PhaseNeed& phase : *phases) {
      if (phase.component.empty()) continue;
      if (std::none_of(
              profiled.profile.places->begin(), profiled.profile.places->end(),
              [&](const ComponentPlaces& places) { return places.component == phase.component; })) {
        return absl::InternalError(absl::StrCat("the profile has a phase of '", phase.component,
                                                "', whose weights it does not have"));
      }
    }
  }
  for (const ComponentPlaces& places : *profiled.profile.places) {
    const auto component = std::find_if(
        model->components.begin(), model->components.end(),
        [&](const ComponentDescription& each) { return each.name == places.component; });
    if (component == model->components.end()) {
      return absl::InternalError(absl::StrCat("the profile has a component '", places.component,
                                              "' that the model has not"));
    }
    absl::flat_hash_map<std::string_view, const WeightPlace*> by_name;
    for (const WeightPlace& place : places.weights) by_name[place.name] = &place;
    ComponentWeights& weights = profiled.components.emplace_back();
    weights.component = &*component;
    for (const WeightTensor& weight : component->weights) {
      const auto place = by_name.find(weight.name);
      if (place != by_name.end()) weights.weights.push_back({&weight, place->second});
    }
  }
  return profiled;
}

bool Planner::State::Fits(const PlanEstimate& estimate) const {
  const DeviceSpec limits = LimitedBy(device, estimate.plan);
  const auto within = [](int64_t bytes, int64_t limit) { return limit == 0 || bytes <= limit; };
  if (!limits.is_gpu) {
    return within(estimate.peak_device, limits.device_bytes) &&
           within(estimate.peak_device, limits.host_bytes);
  }
  return within(estimate.peak_device, limits.device_bytes) &&
         within(estimate.peak_host, limits.host_bytes);
}

double Planner::State::ResidentSeconds(const Profiled& profiled) const {
  const MachineSpeed speed = MachineSpeed::Of(device.is_gpu);
  double seconds = 0;
  for (const PhaseNeed& phase : profiled.Phases({})) {
    seconds += speed.ComputeSeconds(phase, {}) * phase.passes;
  }
  return seconds;
}

PlanEstimate Planner::State::Predict(const Plan& plan, const std::vector<WeightNeeds>& needs,
                                     const Profiled& profiled) const {
  PlanEstimate estimate{.plan = plan, .name = NameOf(plan), .stages = {}};
  int64_t resident = 0, homes = 0;
  for (const WeightNeeds& need : needs) {
    resident += need.resident_bytes;
    homes += need.home_bytes;
    estimate.lossless = estimate.lossless && need.plan.lossless();
  }
  const auto need_of = [&](const std::string& component) -> const WeightNeeds& {
    static const WeightNeeds kNone = {};
    if (component.empty()) return kNone;
    return *std::find_if(needs.begin(), needs.end(), [&](const WeightNeeds& need) {
      return need.component->name == component;
    });
  };
  const MachineSpeed speed = MachineSpeed::Of(device.is_gpu);
  PlanTime time;
  // The components whose slots the stage holds so far: they are let go of when it is over.
  std::set<const WeightNeeds*> held;
  std::optional<Stage> holding;
  for (const PhaseNeed& phase : profiled.Phases(VariantOf(plan))) {
    const WeightNeeds& need = need_of(phase.component);
    if (phase.stage != holding) held.clear();
    holding = phase.stage;
    held.insert(&need);
    int64_t slots = 0;
    for (const WeightNeeds* each : held) slots += each->slot_bytes;
    const PartNeeds& part = need.PartOf(phase.part);
    int64_t workspace = std::max(
        part.decode_bytes,
        std::min(phase.rows, RowsAtOnce(need.plan.quantize, device.is_gpu)) * part.row_bytes);
    if (device.is_gpu) {
      workspace += kGpuMatmulWorkspace;
      if (phase.convolution_flops > 0) workspace += kGpuConvolutionWorkspace;
    }
    StageEstimate now = {.stage = phase.stage,
                         .weights = resident + slots + (device.is_gpu ? 0 : homes),
                         .activations = phase.device_activations,
                         .workspace = workspace,
                         .host = 0,
                         .flops = phase.passes * (phase.linear_flops + phase.attention_flops +
                                                  phase.convolution_flops)};
    now.kernels.Add(phase.kernels, phase.passes);
    now.host = device.is_gpu ? homes + phase.host_activations + kStagingBytes : now.device();
    const auto same = std::find_if(estimate.stages.begin(), estimate.stages.end(),
                                   [&](const StageEstimate& s) { return s.stage == now.stage; });
    if (same == estimate.stages.end()) {
      estimate.stages.push_back(now);
    } else {
      now.host = std::max(same->host, now.host);
      now.flops += same->flops;
      now.kernels.Add(same->kernels);
      const StageEstimate& larger = now.device() > same->device() ? now : *same;
      *same = {.stage = now.stage,
               .weights = larger.weights,
               .activations = larger.activations,
               .workspace = larger.workspace,
               .host = now.host,
               .flops = now.flops,
               .kernels = now.kernels};
    }
    speed.Add(phase, need, part, time);
  }
  for (const StageEstimate& stage : estimate.stages) {
    estimate.peak_device = std::max(estimate.peak_device, stage.device());
    estimate.peak_host = std::max(estimate.peak_host, stage.host);
  }
  // More and smaller matrix products.
  if (plan.chunk_feed_forward) time.seconds *= kChunkedTime;
  const double resident_seconds = ResidentSeconds(profiled);
  if (resident_seconds > 0) estimate.slowdown = time.seconds / resident_seconds;
  if (time.transfer_seconds > 0)
    estimate.transfer_hidden = 1 - std::min(1.0, time.waiting_seconds / time.transfer_seconds);
  estimate.time_class = ClassOf(estimate.slowdown);
  estimate.fits = Fits(estimate);
  return estimate;
}

absl::StatusOr<PlanEstimate> Planner::State::Estimate(const Plan& plan,
                                                      const Profiled& profiled) const {
  Plan full = plan;
  full.mode.reset();
  if (!full.offload) full.offload = "none";
  if (!full.weights_home) full.weights_home = WeightsHomeName(WeightsHome::kFile);
  std::vector<WeightNeeds> needs;
  for (const ComponentWeights& weights : profiled.components) {
    KINO_ASSIGN_OR_RETURN(const WeightPlan held, WeightPlanOf(full, weights.component->name,
                                                              weights.component->is_autoencoder));
    if (held.home == WeightsHome::kPinned && !device.is_gpu) {
      return absl::FailedPreconditionError(
          "weights_home 'pinned' needs a GPU; on the CPU weights are at home in 'file' or "
          "'pageable'");
    }
    needs.push_back(NeedsOf(weights, held, device.is_gpu));
  }
  return Predict(full, needs, profiled);
}

absl::StatusOr<PlanEstimate> Planner::Estimate(const Plan& plan) const {
  KINO_ASSIGN_OR_RETURN(const Profiled profiled, state_->ProfileOf({plan}));
  return state_->Estimate(plan, profiled);
}

std::vector<Plan> Planner::State::Candidates(const Plan& base, int blocks) const {
  // Every combination of what `base` leaves open; the simplest first.
  std::vector<Plan> plans = {base};
  plans[0].mode.reset();
  const auto branch = [&plans](const auto& vary) {
    std::vector<Plan> grown;
    for (const Plan& plan : plans) vary(plan, grown);
    plans = std::move(grown);
  };
  if (!base.offload) {
    branch([&](const Plan& plan, std::vector<Plan>& grown) {
      std::vector<std::string> policies = {"none", "model"};
      for (const int count : kBlockCounts) {
        if (count < blocks) policies.push_back(absl::StrCat("block:", count));
      }
      policies.emplace_back("leaf");
      for (const std::string& policy : policies) {
        grown.push_back(plan);
        grown.back().offload = policy;
      }
    });
  }
  if (!base.weights_home) {
    branch([&](const Plan& plan, std::vector<Plan>& grown) {
      grown.push_back(plan);
      grown.back().weights_home = "file";
      if (!device.is_gpu || plan.offload == "none") return;
      grown.push_back(plan);
      grown.back().weights_home = "pinned";
    });
  }
  if (!base.vae_tiling) {
    branch([&](const Plan& plan, std::vector<Plan>& grown) {
      grown.push_back(plan);
      const VaeTiling small = {.tile_sample_min_height = kSmallTile,
                               .tile_sample_min_width = kSmallTile,
                               .tile_sample_min_num_frames = {},
                               .tile_sample_stride_height = kSmallTileStride,
                               .tile_sample_stride_width = kSmallTileStride,
                               .tile_sample_stride_num_frames = {},
                               .framewise = {}};
      for (const VaeTiling& tiling : {VaeTiling(), small}) {
        if (!model->details->CheckTiling(request, tiling).ok()) continue;
        grown.push_back(plan);
        grown.back().vae_tiling = tiling;
      }
    });
  }
  if (!base.chunk_feed_forward) {
    branch([&](const Plan& plan, std::vector<Plan>& grown) {
      grown.push_back(plan);
      grown.push_back(plan);
      grown.back().chunk_feed_forward = kFeedForwardChunk;
    });
  }
  if (allow_lossy && !base.storage_dtype && !base.quantize) {
    branch([&](const Plan& plan, std::vector<Plan>& grown) {
      grown.push_back(plan);
      for (const auto& [storage_dtype, quantize] : kLossyForms) {
        grown.push_back(plan);
        if (storage_dtype != nullptr) grown.back().storage_dtype = storage_dtype;
        if (quantize != nullptr) grown.back().quantize = quantize;
      }
    });
  }
  return plans;
}

absl::StatusOr<std::vector<PlanEstimate>> Planner::Table(const Plan& base) const {
  // What the candidates ask of a profile does not depend on how many blocks there are.
  KINO_ASSIGN_OR_RETURN(const Profiled profiled,
                        state_->ProfileOf(state_->Candidates(base, /*blocks=*/0)));
  int blocks = 0;
  for (const ComponentPlaces& places : *profiled.profile.places) {
    for (const WeightPlace& place : places.weights) blocks = std::max(blocks, place.block + 1);
  }
  std::vector<PlanEstimate> table;
  for (const Plan& plan : state_->Candidates(base, blocks)) {
    KINO_ASSIGN_OR_RETURN(PlanEstimate estimate, state_->Estimate(plan, profiled));
    // Of plans that hold the weights alike, those that are worse in every way are left out.
    const bool is_of_use = std::none_of(table.begin(), table.end(), [&](const PlanEstimate& other) {
      return other.plan.offload == estimate.plan.offload &&
             other.plan.quantize == estimate.plan.quantize &&
             other.plan.storage_dtype == estimate.plan.storage_dtype &&
             Rank(other) <= Rank(estimate) && other.slowdown <= estimate.slowdown &&
             other.peak_device <= estimate.peak_device && other.peak_host <= estimate.peak_host;
    });
    if (is_of_use) table.push_back(std::move(estimate));
  }
  std::stable_sort(table.begin(), table.end(), [](const PlanEstimate& a, const PlanEstimate& b) {
    return std::make_tuple(Rank(a), a.slowdown, a.peak_device) <
           std::make_tuple(Rank(b), b.slowdown, b.peak_device);
  });
  return table;
}

absl::StatusOr<PlanEstimate> Planner::Choose(const Plan& base) const {
  std::optional<PlanEstimate> chosen;
  if (!base.mode) {
    KINO_ASSIGN_OR_RETURN(chosen, Estimate(base));
  } else {
    KINO_ASSIGN_OR_RETURN(const std::vector<PlanEstimate> table, Table(base));
    const auto smallest = std::min_element(
        table.begin(), table.end(),
        [](const PlanEstimate& a, const PlanEstimate& b) { return a.peak_device < b.peak_device; });
    if (*base.mode == "fastest") {
      chosen = table.front();
    } else if (*base.mode == "auto") {
      const auto first = std::find_if(table.begin(), table.end(),
                                      [](const PlanEstimate& each) { return each.fits; });
      chosen = first == table.end() ? *smallest : *first;
    } else {
      chosen = *smallest;
    }
  }
  if (chosen->fits) return *std::move(chosen);
  const DeviceSpec limits = LimitedBy(state_->device, chosen->plan);
  const bool by_host = limits.device_bytes == 0 ||
                       (chosen->peak_device <= limits.device_bytes && limits.host_bytes > 0);
  const StageEstimate& stage = chosen->peak_stage();
  return absl::ResourceExhaustedError(absl::StrCat(
      "needs ", Size(by_host ? chosen->peak_host : chosen->peak_device), " of ",
      by_host ? "host" : "device", " memory in stage ", StageName(stage.stage), " with ",
      InWords(chosen->plan), ", but ", Size(by_host ? limits.host_bytes : limits.device_bytes),
      " may be used; ", WhatWouldFit(base)));
}

std::string Planner::WhatWouldFit(const Plan& base) const {
  // Anything goes that loses nothing, or that `base` asks for.
  Plan open = base;
  open.mode.reset();
  open.offload.reset();
  if (open.weights_home && *open.weights_home == "pinned") open.weights_home.reset();
  open.vae_tiling.reset();
  open.chunk_feed_forward.reset();
  bool is_known = true;
  const auto first_that_fits = [&](const Planner& planner) -> std::optional<PlanEstimate> {
    const absl::StatusOr<std::vector<PlanEstimate>> table = planner.Table(open);
    if (absl::IsUnavailable(table.status())) is_known = false;
    if (!table.ok()) return std::nullopt;
    const auto first = std::find_if(table->begin(), table->end(),
                                    [](const PlanEstimate& each) { return each.fits; });
    if (first == table->end()) return std::nullopt;
    return *first;
  };
  if (const std::optional<PlanEstimate> found = first_that_fits(*this))
    return absl::StrCat("fits with ", InWords(found->plan));

  const FamilyDescription& details = *state_->model->details;
  const int multiple = details.limits().frames_multiple;
  const auto frames_of = [&](int steps) {
    return details.FramesOf(state_->request.task, steps * multiple + 1);
  };
  const auto with_frames = [&](int steps) {
    Request shorter = state_->request;
    shorter.num_frames = frames_of(steps);
    for (Condition& condition : shorter.conditions) {
      if (condition.num_frames > shorter.num_frames) condition.num_frames.reset();
    }
    return Planner(*state_->model, shorter, state_->profiles, state_->device, state_->allow_lossy);
  };
  // The largest number of frames whose smallest plan fits; memory grows with it.
  int low = -1, high = (state_->request.num_frames.value_or(1) - 1) / multiple;
  std::optional<PlanEstimate> best;
  while (high - low > 1 && is_known) {
    const int middle = low + (high - low) / 2;
    if (std::optional<PlanEstimate> found = first_that_fits(with_frames(middle))) {
      best = std::move(found);
      low = middle;
    } else {
      high = middle;
    }
  }
  std::string text;
  if (!is_known) {
    text = "what would fit is not known now";
  } else if (best) {
    text = absl::StrCat("fits up to ", frames_of(low), " frames with ", InWords(best->plan));
  } else {
    const absl::StatusOr<std::vector<PlanEstimate>> table = Table(open);
    if (!table.ok()) return std::string(table.status().message());
    const PlanEstimate& least = *std::min_element(
        table->begin(), table->end(),
        [](const PlanEstimate& a, const PlanEstimate& b) { return a.peak_device < b.peak_device; });
    text = absl::StrCat("nothing fits at this size; the least it needs is ",
                        Size(least.peak_device), " (", InWords(least.plan), ")");
  }
  if (!state_->allow_lossy) {
    const Planner lossy(*state_->model, state_->request, state_->profiles, state_->device, true);
    if (const std::optional<PlanEstimate> found = first_that_fits(lossy)) {
      absl::StrAppend(&text, "; lossy storage, which must be asked for, would fit with ",
                      InWords(found->plan));
    }
  }
  return text;
}

absl::StatusOr<PlanEstimate> Planner::NextLower(const Plan& current, const Plan& base,
                                                Stage stage) const {
  KINO_ASSIGN_OR_RETURN(const PlanEstimate now, Estimate(current));
  KINO_ASSIGN_OR_RETURN(const std::vector<PlanEstimate> table, Table(base));
  const auto device = [stage](const PlanEstimate& each) {
    for (const StageEstimate& one : each.stages) {
      if (one.stage == stage) return one.device();
    }
    return each.peak_device;
  };
  const auto is_less = [](int64_t less, int64_t than) {
    return static_cast<double>(less) < kLowerBy * static_cast<double>(than);
  };
  for (const PlanEstimate& each : table) {
    if (is_less(device(each), device(now))) return each;
  }
  // Page-locked memory may be what ran out.
  for (const PlanEstimate& each : table) {
    if (device(each) <= device(now) && is_less(each.peak_host, now.peak_host)) return each;
  }
  return absl::NotFoundError(absl::StrCat("no plan needs less than the ", Size(device(now)), " of ",
                                          now.name, " in stage ", StageName(stage)));
}

}  // namespace kino::engine
