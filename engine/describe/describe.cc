#include "engine/describe/describe.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/checkpoint.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/describe/families.h"
#include "engine/describe/weight_plan.h"

namespace kino::engine {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxPromptBytes = 8192;

// Appends violations; each check says what was expected and what was got.
struct Checker : FailInto {
  void Range(std::string_view field, int value, int low, int high) const {
    if (value < low || value > high) Refuse(field, value, low, high);
  }
  void Range(std::string_view field, double value, double low, double high) const {
    if (!(value >= low && value <= high)) Refuse(field, value, low, high);
  }

 private:
  template <typename T>
  void Refuse(std::string_view field, T value, T low, T high) const {
    (*this)(std::string(field), absl::StrCat("expected ", low, " to ", high, ", got ", value));
  }
};

template <typename T>
void Fill(std::optional<T>& field, const std::optional<T>& fallback) {
  if (!field.has_value()) field = fallback;
}

void FillAll(Request& request, const Request& from, const std::vector<KnobInfo>& knobs) {
  Fill(request.height, from.height);
  Fill(request.width, from.width);
  Fill(request.num_frames, from.num_frames);
  if (Denoises(request.task)) {
    Fill(request.negative_prompt, from.negative_prompt);
    Fill(request.num_inference_steps, from.num_inference_steps);
    Fill(request.guidance_scale, from.guidance_scale);
  }
  Fill(request.fps, from.fps);
  if (!request.output.lossless) Fill(request.output.quality, from.output.quality);
  if (request.knobs.family.empty()) request.knobs.family = from.knobs.family;
  FillKnobs(knobs, request.task, request.knobs, from.knobs);
}

// What the operator's configuration sets for this request. One that says how many steps it takes,
// or brings a list of its own, does not go by a list of the configuration.
Request OverridesFor(const ModelDescription& model, const Request& request) {
  const auto is_list = [](const std::pair<const std::string, KnobValue>& knob) {
    return std::holds_alternative<std::vector<double>>(knob.second);
  };
  Request overrides = model.overrides;
  if (request.num_inference_steps || absl::c_any_of(request.knobs.values, is_list))
    std::erase_if(overrides.knobs.values, is_list);
  return overrides;
}

void CheckSize(const Request& request, const Limits& limits, const Checker& check) {
  for (const auto& [field, value] :
       {std::pair{"height", *request.height}, std::pair{"width", *request.width}}) {
    check.Range(field, value, limits.min_size, limits.max_size);
    if (value % limits.size_multiple != 0) {
      check(field, absl::StrCat("expected a multiple of ", limits.size_multiple, ", got ", value));
    }
  }
  const int frames = *request.num_frames;
  check.Range("num_frames", frames, 1, limits.max_frames);
  const int64_t pixels = int64_t{*request.height} * *request.width;
  if (*request.height > 0 && *request.width > 0 && frames > 0 &&
      pixels > limits.max_pixels / frames) {
    check("num_frames",
          absl::StrCat("height * width * num_frames may be at most ", limits.max_pixels, ", got ",
                       *request.height, " * ", *request.width, " * ", frames));
  }
}

// Of a video of which only the first frames are used the others are not there.
void CutToNumFrames(const std::string& field, Condition& condition, const Checker& check) {
  if (!condition.num_frames) return;
  const int frames = *condition.num_frames;
  if (condition.kind == ConditionKind::kImage)
    return check(field + ".num_frames", absl::StrCat("an image has one frame; leave it out"));
  if (frames < 1) {
    check(field + ".num_frames", absl::StrCat("expected 1 or more, got ", frames));
  } else if (condition.size && frames > condition.size->num_frames) {
    check(field + ".num_frames",
          absl::StrCat("the video has ", condition.size->num_frames, " frames, got ", frames));
  } else if (condition.size) {
    condition.size->num_frames = frames;
  }
}

// What denoising goes by.
void CheckDenoising(const Request& request, const Limits& limits, const Checker& check) {
  const char* const task = TaskName(request.task);
  if (Denoises(request.task)) {
    if (!request.prompt) check("prompt", absl::StrCat(task, " needs a prompt (it may be empty)"));
    check.Range("num_inference_steps", *request.num_inference_steps, 1, limits.max_steps);
    check.Range("guidance_scale", *request.guidance_scale, 0.0, 1000.0);
    return;
  }
  for (const auto& [field, is_given] :
       {std::pair{"prompt", request.prompt.has_value()},
        std::pair{"negative_prompt", request.negative_prompt.has_value()},
        std::pair{"num_inference_steps", request.num_inference_steps.has_value()},
        std::pair{"guidance_scale", request.guidance_scale.has_value()}}) {
    if (is_given) check(field, absl::StrCat(task, " denoises nothing; leave it out"));
  }
}

void CheckVaeTiling(const VaeTiling& tiling, const VaeTileSizes& defaults, const Checker& check) {
  const VaeTileSizes sizes = defaults.With(tiling);
  const auto pair = [&](const char* what, const std::optional<int>& size, int full_size,
                        const std::optional<int>& stride, int full_stride, int unit) {
    const std::string size_field = absl::StrCat("plan.vae_tiling.tile_sample_min_", what);
    const std::string stride_field = absl::StrCat("plan.vae_tiling.tile_sample_stride_", what);
    // 0 is "not given" to diffusers; here a value that is given counts.
    if (size && (*size < unit || *size > 1 << 20)) {
      check(size_field, absl::StrCat("expected at least ", unit, ", got ", *size));
    }
    if (stride && (*stride < unit || *stride > 1 << 20)) {
      check(stride_field, absl::StrCat("expected at least ", unit, ", got ", *stride));
    } else if (full_stride > full_size) {
      check(stride_field,
            absl::StrCat("expected at most the tile's ", full_size, ", got ", full_stride));
    } else if (sizes.adds_up && (size || stride) && 2 * int64_t{full_stride} < full_size) {
      check(stride_field, absl::StrCat("expected at least half of the tile's ", full_size, ", got ",
                                       full_stride));
    }
  };
  pair("height", tiling.tile_sample_min_height, sizes.min_height, tiling.tile_sample_stride_height,
       sizes.stride_height, sizes.unit);
  pair("width", tiling.tile_sample_min_width, sizes.min_width, tiling.tile_sample_stride_width,
       sizes.stride_width, sizes.unit);
  if (defaults.min_num_frames > 0) {
    pair("num_frames", tiling.tile_sample_min_num_frames, sizes.min_num_frames,
         tiling.tile_sample_stride_num_frames, sizes.stride_num_frames, sizes.frames_unit);
    return;
  }
  for (const auto& [field, value] :
       {std::pair{"tile_sample_min_num_frames", tiling.tile_sample_min_num_frames},
        std::pair{"tile_sample_stride_num_frames", tiling.tile_sample_stride_num_frames}}) {
    if (value) {
      check(absl::StrCat("plan.vae_tiling.", field),
            "this model's VAE has no tiles in time; it decodes in chunks of frames, exactly");
    }
  }
}

// The layer's weight that a tensor of a layer quantized by bitsandbytes belongs to; empty: it
// stands for itself.
std::string QuantizedWeightOf(const std::string& name) {
  const size_t inner = name.find(".weight.");
  if (inner != std::string::npos) return name.substr(0, inner) + ".weight";
  for (const std::string_view suffix : {".SCB", ".weight_format"}) {
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size()) + ".weight";
  }
  return "";
}

void AddWeights(const Checkpoint& checkpoint, ComponentDescription& component) {
  component.weight_bytes = checkpoint.bytes();
  std::map<std::string, WeightTensor> weights;
  for (const auto& [name, entry] : checkpoint.tensors()) {
    const std::string owner = QuantizedWeightOf(name);
    WeightTensor& weight = weights[owner.empty() ? name : owner];
    weight.bytes += entry->bytes;
    if (!owner.empty()) {
      weight.is_quantized = true;
      // Four bits an element.
      if (name.ends_with(".absmax") && weight.elements > 0) weight.elements *= 2;
      continue;
    }
    weight.name = name;
    weight.shape = entry->shape;
    weight.dtype = entry->dtype;
    weight.elements = 1;
    for (const int64_t extent : entry->shape) weight.elements *= extent;
    weight.is_quantized = weight.is_quantized || entry->block != GgmlType::kNone;
  }
  for (auto& [name, weight] : weights) {
    if (weight.name.empty()) continue;  // its own tensor is missing
    component.weight_elements += weight.elements;
    component.weights.push_back(std::move(weight));
  }
}

// A LLaVA's folder holds two encoders, which a run needs one after the other: what sees images
// becomes a component of its own, which plans name image_encoder.
ComponentDescription TakeImageEncoder(ComponentDescription& llava) {
  ComponentDescription seeing{.name = "image_encoder",
                              .library = llava.library,
                              .class_name = llava.class_name,
                              .variant = llava.variant,
                              .part_of = llava.name};
  std::vector<WeightTensor> reading;
  for (WeightTensor& weight : llava.weights) {
    std::string_view name = weight.name;
    if (name.starts_with("model.")) name.remove_prefix(6);
    const bool sees =
        name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
    if (!sees) {
      reading.push_back(std::move(weight));
      continue;
    }
    seeing.weight_bytes += weight.bytes;
    seeing.weight_elements += weight.elements;
    seeing.weights.push_back(std::move(weight));
  }
  llava.weight_bytes -= seeing.weight_bytes;
  llava.weight_elements -= seeing.weight_elements;
  llava.weights = std::move(reading);
  return seeing;
}

// "models--OWNER--NAME" of the Hugging Face hub's cache holds each version in a folder of its own.
absl::Status CheckIsNoHubFolder(const std::string& folder, const std::string& index_path) {
  std::error_code error;
  const fs::path snapshots = fs::path(folder) / "snapshots";
  if (fs::exists(index_path, error) || !fs::is_directory(snapshots, error)) return absl::OkStatus();
  std::set<std::string> versions;
  for (const auto& entry : fs::directory_iterator(snapshots, error)) {
    versions.insert(entry.path().filename().string());
  }
  return absl::NotFoundError(absl::StrCat(
      "'", folder, "' is a folder of the Hugging Face hub's cache, and the model is one below it: ",
      versions.empty() ? "snapshots/, which is empty"
                       : absl::StrCat("snapshots/", absl::StrJoin(versions, " or snapshots/"))));
}

}  // namespace

const char* TaskName(Task task) {
  switch (task) {
    case Task::kUnspecified:
      return "TASK_UNSPECIFIED";
    case Task::kTextToVideo:
      return "TEXT_TO_VIDEO";
    case Task::kImageToVideo:
      return "IMAGE_TO_VIDEO";
    case Task::kVideoToVideo:
      return "VIDEO_TO_VIDEO";
    case Task::kUpscale:
      return "UPSCALE";
  }
  return "TASK_UNSPECIFIED";
}

int64_t ModelDescription::WeightBytes(const ComputeDTypes& dtypes) const {
  int64_t bytes = 0;
  for (const ComponentDescription& component : components)
    bytes += component.weight_elements * DTypeSize(dtypes.Of(component.name));
  return bytes;
}

std::vector<std::string> ModelDescription::WeightedComponents() const {
  std::vector<std::string> names;
  for (const ComponentDescription& component : components) {
    if (component.weight_bytes > 0) names.push_back(component.name);
  }
  return names;
}

std::vector<std::string> ModelDescription::ComponentsWithoutVariant() const {
  std::vector<std::string> names;
  for (const ComponentDescription& component : components) {
    if (component.weight_bytes > 0 && !original_files.contains(component.name) &&
        component.variant != variant)
      names.push_back(component.name);
  }
  return names;
}

absl::StatusOr<std::vector<std::string>> WeightFiles(const ModelDescription& model) {
  std::vector<std::string> paths;
  for (const ComponentDescription& component : model.components) {
    const std::string& name = component.name;
    if (component.weight_bytes == 0 || !component.part_of.empty()) continue;
    const auto original = model.original_files.find(name);
    if (original != model.original_files.end()) {
      paths.push_back(original->second);
      continue;
    }
    KINO_ASSIGN_OR_RETURN(const std::shared_ptr<const Checkpoint> checkpoint,
                          Checkpoint::Open(absl::StrCat(model.folder, "/", name), model.variant));
    for (std::string& path : checkpoint->paths()) paths.push_back(std::move(path));
  }
  return paths;
}

absl::Status FirstViolation(const std::vector<FieldViolation>& violations) {
  if (violations.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(violations.front().field, ": ", violations.front().description));
}

std::vector<TaskDescription> ModelDescription::Tasks() const {
  std::vector<TaskDescription> tasks;
  for (const TaskDescription& task : details->tasks()) {
    tasks.push_back({.task = task.task, .defaults = overrides});
    tasks.back().defaults.task = task.task;
    if (!Denoises(task.task)) {
      tasks.back().defaults.negative_prompt.reset();
      tasks.back().defaults.num_inference_steps.reset();
      tasks.back().defaults.guidance_scale.reset();
    }
    tasks.back().defaults.knobs = {};
    FillKnobs(knobs, task.task, tasks.back().defaults.knobs, overrides.knobs);
    FillAll(tasks.back().defaults, task.defaults, knobs);
    FillKnobs(knobs, task.task, tasks.back().defaults.knobs,
              DefaultKnobs(knobs, family, task.task));
    tasks.back().defaults.knobs.family = family;
  }
  return tasks;
}

absl::StatusOr<ModelDescription> DescribeModel(const std::string& folder,
                                               const OriginalFiles& original_files,
                                               const std::string& variant) {
  const std::string index_path = (fs::path(folder) / "model_index.json").string();
  KINO_RETURN_IF_ERROR(CheckIsNoHubFolder(folder, index_path));
  KINO_ASSIGN_OR_RETURN(nlohmann::json index, ReadJsonFile(index_path));
  ModelDescription model;
  model.folder = folder;
  model.original_files = original_files;
  model.variant = variant;
  ConfigReader reader(index, index_path);
  model.pipeline_class = reader.Get("_class_name", std::string());
  KINO_RETURN_IF_ERROR(reader.status());

  const FamilyDescriber* family = nullptr;
  std::vector<std::string> known;
  for (const FamilyDescriber& describer : FamilyDescribers()) {
    known.insert(known.end(), describer.pipeline_classes.begin(), describer.pipeline_classes.end());
    if (absl::c_linear_search(describer.pipeline_classes, model.pipeline_class))
      family = &describer;
  }
  if (family == nullptr) {
    return absl::UnimplementedError(absl::StrCat(index_path, ": _class_name '",
                                                 model.pipeline_class, "', expected one of ",
                                                 absl::StrJoin(known, ", ")));
  }
  model.family = family->family;
  model.knobs = family->knobs;

  for (const std::string& name : family->optional_components) {
    const std::string path = (fs::path(folder) / name / "config.json").string();
    if (!fs::exists(path)) continue;
    KINO_ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(path));
    ConfigReader config_reader(config, path);
    index[name] = {"diffusers", config_reader.Get("_class_name", name)};
    KINO_RETURN_IF_ERROR(config_reader.status());
  }

  ModelSource source = {.folder = folder,
                        .pipeline_class = model.pipeline_class,
                        .original_files = original_files,
                        .transformer_config = {},
                        .transformer_config_path = {}};
  for (const auto& [name, value] : index.items()) {
    // Components are [library, class]; [null, null] is one that is absent, plain values are the
    // pipeline's own config.
    if (name.starts_with("_") || !value.is_array() || value.size() != 2 || !value[0].is_string() ||
        !value[1].is_string()) {
      continue;
    }
    ComponentDescription component{.name = name,
                                   .library = value[0].get<std::string>(),
                                   .class_name = value[1].get<std::string>()};
    component.is_autoencoder = component.class_name.starts_with("Autoencoder");
    const bool is_original = original_files.contains(name);
    // Tokenizers and samplers have no weights.
    if (is_original || fs::exists(fs::path(folder) / name / "config.json")) {
      const auto find = family->find_original.find(name);
      if (is_original && find == family->find_original.end()) {
        return absl::UnimplementedError(
            absl::StrCat("'", original_files.at(name), "': '", name, "' of family '",
                         family->family, "' is read from a model folder, not from a file"));
      }
      KINO_ASSIGN_OR_RETURN(const ComponentFiles files,
                            ComponentFiles::OpenComponent(folder, name, variant, original_files,
                                                          is_original ? find->second : nullptr));
      AddWeights(*files.checkpoint, component);
      if (!is_original) component.variant = files.checkpoint->variant();
      if (name == "transformer") {
        source.transformer_config = files.config;
        source.transformer_config_path = files.config_path;
      }
    }
    if (component.class_name == "LlavaForConditionalGeneration") {
      if (is_original) {
        return absl::UnimplementedError(absl::StrCat(
            "'", original_files.at(name), "': '", name,
            "' of this model reads images as well, and is read from a model folder, not from a "
            "file"));
      }
      model.components.push_back(TakeImageEncoder(component));
    }
    model.components.push_back(std::move(component));
  }
  for (const auto& [name, path] : original_files) {
    if (absl::c_any_of(model.components, [&name = name](const ComponentDescription& each) {
          return each.name == name && each.part_of.empty();
        }))
      continue;
    return absl::InvalidArgumentError(absl::StrCat("'", path, "': a ", name,
                                                   " to take the place of the folder's, but ",
                                                   index_path, " names none"));
  }
  const std::vector<std::string> without = model.ComponentsWithoutVariant();
  if (!without.empty() && absl::c_none_of(model.components, [&](const ComponentDescription& each) {
        return each.variant == variant;
      })) {
    return absl::NotFoundError(
        absl::StrCat("variant '", variant, "': none of ", absl::StrJoin(without, ", "), " in '",
                     folder, "' has weights of it; leave it out to read the others"));
  }
  KINO_ASSIGN_OR_RETURN(model.details, family->describe(source));
  std::erase_if(model.components, [&model](const ComponentDescription& component) {
    return !model.details->Uses(component);
  });
  model.generation = family->generation(source);
  model.card = ReadModelCard(folder);
  return model;
}

Limits UsualLimits(int size_multiple, int temporal_ratio) {
  return {.size_multiple = size_multiple,
          .min_size = size_multiple,
          .max_size = 4096,
          .frames_multiple = temporal_ratio,
          .max_frames = 2048 * temporal_ratio + 1,
          .max_pixels = 1'000'000'000,
          .max_steps = 1000};
}

void SingleTaskDescription::Resolve(Request& request,
                                    std::vector<FieldViolation>& violations) const {
  if (!violations.empty()) return;
  const absl::Status schedule = check_schedule_(request);
  if (schedule.ok()) return;
  FailInto{violations}("num_inference_steps",
                       absl::StrCat("no schedule: ", std::string(schedule.message())));
}

Task TaskOf(const ModelDescription& model, const Request& request) {
  if (request.task != Task::kUnspecified) return request.task;
  // What its conditions lack for it is told better than that they make another task.
  if (model.details->tasks().size() == 1) return model.details->tasks().front().task;
  Task task = Task::kTextToVideo;
  for (const Condition& condition : request.conditions) {
    if (condition.kind != ConditionKind::kImage) return Task::kVideoToVideo;
    task = Task::kImageToVideo;
  }
  return task;
}

ResolvedRequest ResolveRequest(const ModelDescription& model, const Request& request,
                               uint64_t draw_seed) {
  ResolvedRequest resolved{.request = request, .violations = {}};
  Request& effective = resolved.request;
  const Checker check{{resolved.violations}};
  effective.task = TaskOf(model, request);
  const TaskDescription* task = nullptr;
  std::vector<std::string> tasks;
  for (const TaskDescription& candidate : model.details->tasks()) {
    tasks.emplace_back(TaskName(candidate.task));
    if (candidate.task == effective.task) task = &candidate;
  }
  if (task == nullptr) {
    check("task", absl::StrCat("this model does ", absl::StrJoin(tasks, ", "), "; got ",
                               TaskName(effective.task)));
    return resolved;
  }
  for (size_t i = 0; i < effective.conditions.size(); ++i)
    CutToNumFrames(absl::StrCat("conditions[", i, "]"), effective.conditions[i], check);
  const Request overrides = OverridesFor(model, request);
  model.details->FillFromConditions(overrides, effective);
  FillAll(effective, overrides, model.knobs);
  FillAll(effective, task->defaults, model.knobs);
  CheckKnobs(model.knobs, model.family, effective.task, effective.knobs, resolved.violations);
  FillKnobs(model.knobs, effective.task, effective.knobs,
            DefaultKnobs(model.knobs, model.family, effective.task));
  if (!effective.seed) effective.seed = draw_seed;

  const Limits& limits = model.details->limits();
  CheckDenoising(effective, limits, check);
  for (const auto& [field, text] : {std::pair{"prompt", &effective.prompt},
                                    std::pair{"negative_prompt", &effective.negative_prompt}}) {
    if (*text && (*text)->size() > kMaxPromptBytes) {
      check(field,
            absl::StrCat("expected at most ", kMaxPromptBytes, " bytes, got ", (*text)->size()));
    }
  }
  if (*effective.num_frames > 0)
    effective.num_frames = model.details->FramesOf(effective.task, *effective.num_frames);
  CheckSize(effective, limits, check);
  check.Range("fps", *effective.fps, 0.1, 1000.0);
  if (effective.output.lossless && effective.output.quality) {
    check("output.quality", "a lossless output has no quality; give one of the two");
  } else if (effective.output.quality) {
    check.Range("output.quality", *effective.output.quality, 0, 100);
  }
  for (size_t i = 0; i < effective.conditions.size(); ++i) {
    const std::string field = absl::StrCat("conditions[", i, "].");
    check.Range(field + "strength", effective.conditions[i].strength, 0.0, 1.0);
    check.Range(field + "frame_index", effective.conditions[i].frame_index, 0,
                *effective.num_frames - 1);
  }
  if (effective.task == Task::kTextToVideo && !effective.conditions.empty()) {
    check("conditions",
          absl::StrCat("TEXT_TO_VIDEO takes none, got ", effective.conditions.size()));
  }
  if (effective.plan.vae_tiling)
    CheckVaeTiling(*effective.plan.vae_tiling, model.details->vae_tiles(), check);
  CheckWeightPlan(effective.plan, model.WeightedComponents(), resolved.violations);
  model.details->Resolve(effective, resolved.violations);
  if (resolved.violations.empty() && effective.plan.vae_tiling) {
    const absl::Status tiling = model.details->CheckTiling(effective, *effective.plan.vae_tiling);
    if (!tiling.ok()) check("plan.vae_tiling", std::string(tiling.message()));
  }
  return resolved;
}

}  // namespace kino::engine
