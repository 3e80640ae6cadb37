#include "server/plan/plan_table.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/command_line/byte_size.h"

namespace kino::plan {
namespace {

std::string Limit(int64_t bytes) {
  return bytes == 0 ? "unknown" : command_line::FormatByteSize(bytes);
}

// The stage whose need on the device is the highest.
std::string PeakStage(const v1::PlanEstimate& plan) {
  const v1::StageMemory* peak = nullptr;
  int64_t most = -1;
  for (const v1::StageMemory& stage : plan.stages()) {
    const int64_t bytes =
        stage.weights_bytes() + stage.activations_bytes() + stage.workspace_bytes();
    if (bytes <= most) continue;
    most = bytes;
    peak = &stage;
  }
  return peak == nullptr ? "" : absl::AsciiStrToLower(v1::Stage_Name(peak->stage()));
}

std::string Frames(const v1::PlanEstimate& plan) {
  if (!plan.lossless()) return "lossy";
  return plan.plan().has_vae_tiling() ? "blended tiles" : "lossless";
}

}  // namespace

std::string PlanTable(const v1::MemoryEstimate& memory) {
  size_t name_width = 4;
  for (const v1::PlanEstimate& plan : memory.plans()) {
    name_width = std::max(name_width, plan.name().size());
  }
  const int width = static_cast<int>(name_width);
  std::string out =
      absl::StrFormat("%s, %s, %s of weights; device memory %s, host memory %s\n", memory.device(),
                      memory.dtype(), command_line::FormatByteSize(memory.weights_bytes()),
                      Limit(memory.device_memory_bytes()), Limit(memory.host_memory_bytes()));
  absl::StrAppendFormat(&out, "  %-*s  %10s  %10s  %-12s  %-4s  %-15s  %s\n", width, "PLAN",
                        "DEVICE", "HOST", "PEAK IN", "FITS", "TIME", "FRAMES");
  for (const v1::PlanEstimate& plan : memory.plans()) {
    absl::StrAppendFormat(
        &out, "%c %-*s  %10s  %10s  %-12s  %-4s  %-15s  %s\n", plan.chosen() ? '*' : ' ', width,
        plan.name(), command_line::FormatByteSize(plan.peak_device_bytes()),
        command_line::FormatByteSize(plan.peak_host_bytes()), PeakStage(plan),
        plan.fits() ? "yes" : "no",
        absl::StrFormat("%.2fx (%s)", plan.slowdown(), plan.time_class()), Frames(plan));
  }
  if (!memory.refusal().empty()) absl::StrAppend(&out, "does not run: ", memory.refusal(), "\n");
  return out;
}

}  // namespace kino::plan
