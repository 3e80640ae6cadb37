#include "server/frontend/rpc/catalog.h"

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "server/config/effective_plan.h"
#include "server/convert/request.h"

namespace kino::frontend {
namespace {

v1::NativeShape NativeShapeOf(const engine::FamilyDescription& family, engine::Task task) {
  v1::NativeShape out;
  for (const engine::TaskDescription& each : family.tasks()) {
    if (each.task != task) continue;
    out.set_height(each.defaults.height.value_or(0));
    out.set_width(each.defaults.width.value_or(0));
    if (each.defaults.num_frames)
      out.set_num_frames(family.FramesOf(task, *each.defaults.num_frames));
    out.set_fps(each.defaults.fps.value_or(0));
  }
  return out;
}

}  // namespace

Catalog::Catalog(const std::vector<config::ModelConfig>& models) {
  for (const config::ModelConfig& model : models) {
    entries_.push_back(
        {.config = model,
         .description = engine::DescribeModel(model.folder, model.original_files, model.variant)});
    auto& description = entries_.back().description;
    if (description.ok()) description->overrides = model.defaults;
    if (description.ok()) {
      const absl::Status plan = config::CheckModelPlan(model, *description);
      if (!plan.ok()) description = plan;
    }
    const absl::Status status = entries_.back().description.status();
    if (!status.ok()) {
      const std::string message(status.message());
      spdlog::error("model '{}' cannot run: {}", model.name, message);
      entries_.back().description = absl::Status(
          status.code(), config::WithoutPaths(model.folder, model.original_files, message));
    }
  }
}

const CatalogEntry* Catalog::Find(const std::string& name) const {
  for (const CatalogEntry& entry : entries_) {
    if (entry.config.name == name) return &entry;
  }
  return nullptr;
}

std::string Catalog::Names() const {
  std::string names;
  for (const CatalogEntry& entry : entries_) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", entry.config.name);
  }
  return names.empty() ? "none" : names;
}

v1::Model ToProto(const CatalogEntry& entry) {
  v1::Model out;
  out.set_name(entry.config.name);
  if (!entry.description.ok()) {
    out.set_problem(std::string(entry.description.status().message()));
    return out;
  }
  const engine::ModelDescription& description = *entry.description;
  out.set_family(description.family);
  out.set_pipeline_class(description.pipeline_class);
  out.set_generation(description.generation);
  out.set_license(description.card.license);
  out.set_license_link(description.card.license_link);
  for (const engine::TaskDescription& task : description.Tasks()) {
    v1::TaskInfo& info = *out.add_tasks();
    info.set_task(convert::FromEngine(task.task));
    convert::FromEngine(task.defaults, info.mutable_defaults());
    info.mutable_defaults()->set_model(entry.config.name);
    *info.mutable_native() = NativeShapeOf(*description.details, task.task);
    for (const engine::KnobInfo& knob : description.knobs) {
      if (!knob.IsOf(task.task)) continue;
      v1::KnobInfo& told = *info.add_knobs();
      convert::FromEngine(knob, &told);
      // What a request gets here, which may be the operator's.
      const auto value = task.defaults.knobs.values.find(knob.name);
      if (value != task.defaults.knobs.values.end())
        convert::FromEngine(value->second, told.mutable_default_());
    }
  }
  const engine::Limits& limits = description.details->limits();
  v1::Limits& proto = *out.mutable_limits();
  proto.set_size_multiple(limits.size_multiple);
  proto.set_min_size(limits.min_size);
  proto.set_max_size(limits.max_size);
  proto.set_frames_multiple(limits.frames_multiple);
  proto.set_max_frames(limits.max_frames);
  proto.set_max_pixels(limits.max_pixels);
  proto.set_max_steps(limits.max_steps);
  return out;
}

}  // namespace kino::frontend
