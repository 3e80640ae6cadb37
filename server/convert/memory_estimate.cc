#include "server/convert/memory_estimate.h"

#include <utility>
#include <vector>

#include "server/convert/job.h"
#include "server/convert/request.h"

namespace kino::convert {

v1::KernelCounts FromEngine(const engine::KernelCounts& kernels) {
  v1::KernelCounts out;
  out.set_launches(kernels.launches);
  out.set_bytes_read(kernels.bytes_read);
  out.set_bytes_written(kernels.bytes_written);
  out.set_roofline_seconds(kernels.roofline_seconds);
  return out;
}

v1::PlanEstimate FromEngine(const engine::PlanEstimate& estimate) {
  v1::PlanEstimate out;
  out.set_name(estimate.name);
  *out.mutable_plan() = FromEngine(estimate.plan);
  for (const engine::StageEstimate& stage : estimate.stages) {
    v1::StageMemory& memory = *out.add_stages();
    memory.set_stage(FromEngine(stage.stage));
    memory.set_weights_bytes(stage.weights);
    memory.set_activations_bytes(stage.activations);
    memory.set_workspace_bytes(stage.workspace);
    memory.set_host_bytes(stage.host);
    memory.set_flops(stage.flops);
    if (stage.kernels.launches > 0) *memory.mutable_kernels() = FromEngine(stage.kernels);
  }
  out.set_peak_device_bytes(estimate.peak_device);
  out.set_peak_host_bytes(estimate.peak_host);
  out.set_slowdown(estimate.slowdown);
  out.set_time_class(engine::TimeClassName(estimate.time_class));
  out.set_transfer_hidden(estimate.transfer_hidden);
  out.set_lossless(estimate.lossless);
  out.set_fits(estimate.fits);
  return out;
}

absl::StatusOr<v1::MemoryEstimate> EstimateMemory(const engine::ModelDescription& model,
                                                  const engine::Request& request,
                                                  const Placement& placement) {
  const engine::DeviceSpec spec = engine::LimitedBy(placement.spec, request.plan);
  const engine::Planner planner(model, request, placement.profiles, spec, placement.allow_lossy);
  v1::MemoryEstimate out;
  out.set_device(placement.device);
  out.set_dtype(placement.dtype.ToString());
  out.set_weights_bytes(model.WeightBytes(placement.dtype));
  out.set_device_memory_bytes(spec.device_bytes);
  out.set_host_memory_bytes(spec.host_bytes);
  const auto table = planner.Table(request.plan);
  if (absl::IsFailedPrecondition(table.status()) || absl::IsUnavailable(table.status())) {
    out.set_refusal(std::string(table.status().message()));
    return out;
  }
  if (!table.ok()) return table.status();
  for (const engine::PlanEstimate& estimate : *table) *out.add_plans() = FromEngine(estimate);
  const auto chosen = planner.Choose(request.plan);
  if (!chosen.ok()) {
    out.set_refusal(std::string(chosen.status().message()));
    return out;
  }
  for (int i = 0; i < out.plans_size(); ++i) {
    if ((*table)[static_cast<size_t>(i)].plan == chosen->plan) {
      out.mutable_plans(i)->set_chosen(true);
      return out;
    }
  }
  // A plan without a mode runs as it is, whether or not the planner would think of it.
  v1::PlanEstimate own = FromEngine(*chosen);
  own.set_chosen(true);
  std::vector<v1::PlanEstimate> plans(out.plans().begin(), out.plans().end());
  out.clear_plans();
  *out.add_plans() = std::move(own);
  for (v1::PlanEstimate& plan : plans) *out.add_plans() = std::move(plan);
  return out;
}

}  // namespace kino::convert
