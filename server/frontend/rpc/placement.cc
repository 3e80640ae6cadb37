#include "server/frontend/rpc/placement.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/describe/weight_plan.h"
#include "google/rpc/error_details.pb.h"
#include "server/config/effective_plan.h"
#include "server/convert/status.h"

namespace kino::frontend {
namespace {

// The lesser of two limits, where 0 is none.
int64_t Lesser(int64_t a, int64_t b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

convert::Placement PlacementOn(const CatalogEntry& entry, const Target& target,
                               const Asker& asker) {
  return {
      .device = target.device,
      .dtype = entry.config.dtype.On(target.spec.is_gpu),
      .spec = target.spec,
      .profiles = asker.profiles.Of(entry.config.name, target.device, asker.tenant, asker.deadline),
      .allow_lossy = entry.config.allow_lossy};
}

}  // namespace

std::vector<Target> Targets(const std::vector<config::WorkerConfig>& configured,
                            const std::vector<WorkerMemory>& known) {
  std::vector<Target> targets;
  const auto add = [&](const std::string& device, int64_t device_bytes, int64_t host_bytes) {
    Target target{
        .device = device,
        .spec = {
            .is_gpu = device != "cpu", .device_bytes = device_bytes, .host_bytes = host_bytes}};
    if (std::find(targets.begin(), targets.end(), target) == targets.end()) {
      targets.push_back(std::move(target));
    }
  };
  for (const config::WorkerConfig& worker : configured) {
    const auto said = std::find_if(known.begin(), known.end(), [&](const WorkerMemory& memory) {
      return memory.worker == worker.name;
    });
    const bool is_known = said != known.end();
    add(worker.device, Lesser(is_known ? said->device_bytes : 0, worker.max_device_memory),
        Lesser(is_known ? said->host_bytes : 0, worker.max_host_memory));
  }
  for (const WorkerMemory& memory : known) {
    if (std::none_of(configured.begin(), configured.end(), [&](const config::WorkerConfig& worker) {
          return worker.name == memory.worker;
        })) {
      add(memory.device, memory.device_bytes, memory.host_bytes);
    }
  }
  return targets;
}

void CheckRequestPlan(const CatalogEntry& entry, const engine::Plan& plan,
                      std::vector<engine::FieldViolation>& violations) {
  const config::ModelConfig& config = entry.config;
  const engine::Plan merged = engine::MergePlans(config.plan, plan);
  if (merged == config.plan) return;
  if (!config.allow_plan_override) {
    violations.push_back({"plan", absl::StrCat("model '", config.name,
                                               "' takes no plan from requests "
                                               "(models[].allow_plan_override is false)")});
    return;
  }
  if (config.allow_lossy || !entry.description.ok()) return;
  const auto refuse = [&](const char* field, const std::string& component) {
    violations.push_back(
        {field, absl::StrCat("changes the result of '", component, "', which model '", config.name,
                             "' does not let requests do (models[].allow_lossy is false)")});
  };
  for (const engine::ComponentDescription& component : entry.description->components) {
    const bool is_autoencoder = absl::StartsWith(component.class_name, "Autoencoder");
    const auto before = engine::WeightPlanOf(config.plan, component.name, is_autoencoder);
    const auto after = engine::WeightPlanOf(merged, component.name, is_autoencoder);
    // What does not parse is told of by ResolveRequest.
    if (!before.ok() || !after.ok()) continue;
    const bool is_quantized = after->quantize != engine::QuantScheme::kNone;
    if (is_quantized && after->quantize != before->quantize) {
      refuse("plan.quantize", component.name);
    } else if (is_quantized && after->quantize_skip != before->quantize_skip) {
      refuse("plan.quantize_skip", component.name);
    } else if (after->quantize == engine::QuantScheme::kInt8 &&
               after->int8_threshold != before->int8_threshold) {
      refuse("plan.llm_int8_threshold", component.name);
    }
    if (after->storage_dtype && after->storage_dtype != before->storage_dtype) {
      refuse("plan.storage_dtype", component.name);
    }
  }
}

absl::StatusOr<std::vector<v1::MemoryEstimate>> Estimate(const CatalogEntry& entry,
                                                         const engine::Request& request,
                                                         const std::vector<Target>& targets,
                                                         const Asker& asker) {
  std::vector<v1::MemoryEstimate> estimates;
  for (const Target& target : targets) {
    auto estimate =
        convert::EstimateMemory(*entry.description, request, PlacementOn(entry, target, asker));
    if (!estimate.ok()) return estimate.status();
    estimates.push_back(*std::move(estimate));
  }
  return estimates;
}

absl::StatusOr<double> CheckFits(const CatalogEntry& entry, const engine::Request& request,
                                 const std::vector<Target>& targets, const Asker& asker) {
  std::string refusals, devices;
  for (const Target& target : targets) {
    const convert::Placement placement = PlacementOn(entry, target, asker);
    const engine::Planner planner(*entry.description, request, placement.profiles,
                                  engine::LimitedBy(target.spec, request.plan),
                                  placement.allow_lossy);
    const auto chosen = planner.Choose(request.plan);
    if (absl::IsUnavailable(chosen.status())) return 0;
    if (chosen.ok()) {
      double flops = 0;
      for (const engine::StageEstimate& stage : chosen->stages) flops += stage.flops;
      return flops;
    }
    absl::StrAppend(&refusals, refusals.empty() ? "" : "; ", target.device, ": ",
                    std::string(chosen.status().message()));
    absl::StrAppend(&devices, devices.empty() ? "" : ",", target.device);
  }
  if (targets.empty()) return 0;
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat("the job fits on no worker of model '", entry.config.name, "': ", refusals));
  google::rpc::ErrorInfo info;
  info.set_reason("DOES_NOT_FIT");
  info.set_domain("kino.v1");
  (*info.mutable_metadata())["devices"] = devices;
  convert::AddDetail(&status, info);
  return status;
}

}  // namespace kino::frontend
