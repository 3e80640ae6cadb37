#include "server/convert/request.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::convert {
namespace {

using Violations = std::vector<engine::FieldViolation>;

void CheckFinite(const std::string& field, double value, Violations* violations) {
  if (!std::isfinite(value)) {
    violations->push_back({field, absl::StrCat("expected a finite number, got ", value)});
  }
}

std::string UnknownEnum(const char* enum_name, int value) {
  return absl::StrCat("expected a value of ", enum_name, ", got ", value);
}

void Take(bool present, double value, const std::string& field, std::optional<double>* out,
          Violations* violations) {
  if (!present) return;
  CheckFinite(field, value, violations);
  *out = value;
}

engine::Task ToEngineTask(v1::Task task, Violations* violations) {
  switch (task) {
    case v1::TASK_UNSPECIFIED:
      return engine::Task::kUnspecified;
    case v1::TEXT_TO_VIDEO:
      return engine::Task::kTextToVideo;
    case v1::IMAGE_TO_VIDEO:
      return engine::Task::kImageToVideo;
    case v1::VIDEO_TO_VIDEO:
      return engine::Task::kVideoToVideo;
    case v1::UPSCALE:
      return engine::Task::kUpscale;
    default:
      violations->push_back({"task", UnknownEnum("Task", task)});
      return engine::Task::kUnspecified;
  }
}

engine::Condition ToEngineCondition(const v1::Condition& condition, const std::string& field,
                                    Violations* violations) {
  engine::Condition out;
  switch (condition.kind()) {
    case v1::Condition::IMAGE:
      out.kind = engine::ConditionKind::kImage;
      break;
    case v1::Condition::VIDEO:
      out.kind = engine::ConditionKind::kVideo;
      break;
    case v1::Condition::CONTROL_VIDEO:
      out.kind = engine::ConditionKind::kControlVideo;
      break;
    case v1::Condition::KIND_UNSPECIFIED:
      violations->push_back({field + ".kind", "expected IMAGE, VIDEO or CONTROL_VIDEO, got none"});
      break;
    default:
      violations->push_back({field + ".kind", UnknownEnum("Condition.Kind", condition.kind())});
  }
  if (condition.source_case() == v1::Condition::SOURCE_NOT_SET) {
    violations->push_back({field, "expected a source: asset_id, data or path, got none"});
  }
  if (condition.has_frame_index()) out.frame_index = condition.frame_index();
  if (condition.has_strength()) {
    CheckFinite(field + ".strength", condition.strength(), violations);
    out.strength = condition.strength();
  }
  if (condition.has_num_frames()) out.num_frames = condition.num_frames();
  return out;
}

engine::OutputOptions ToEngineOutput(const v1::OutputOptions& output, Violations* violations) {
  engine::OutputOptions out;
  if (output.codec() != v1::VIDEO_CODEC_UNSPECIFIED && output.codec() != v1::H264) {
    violations->push_back({"output.codec", UnknownEnum("VideoCodec", output.codec())});
  }
  if (output.has_quality()) out.quality = output.quality();
  out.lossless = output.lossless();
  if (output.lossless() && output.has_quality()) {
    violations->push_back(
        {"output.quality", absl::StrCat("lossless excludes quality, got ", output.quality())});
  }
  return out;
}

// The message's field that holds the request's family's knobs; nullptr: none.
const google::protobuf::FieldDescriptor* FamilyField(const v1::GenerateRequest& request) {
  return request.GetReflection()->GetOneofFieldDescriptor(
      request, request.GetDescriptor()->FindOneofByName("family"));
}

// A family's field by name; nullptr: this version's API has no such family.
const google::protobuf::FieldDescriptor* FamilyField(const std::string& family) {
  const google::protobuf::FieldDescriptor* const field =
      v1::GenerateRequest::descriptor()->FindFieldByName(family);
  return field != nullptr && field->real_containing_oneof() != nullptr ? field : nullptr;
}

// What `field` of a family's message says; nothing where it is not set.
std::optional<engine::KnobValue> KnobOf(const google::protobuf::Message& message,
                                        const google::protobuf::FieldDescriptor& field) {
  using Field = google::protobuf::FieldDescriptor;
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  if (field.is_repeated()) {
    std::vector<double> numbers;
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i)
      numbers.push_back(reflection.GetRepeatedDouble(message, &field, i));
    if (numbers.empty()) return std::nullopt;
    return numbers;
  }
  if (!reflection.HasField(message, &field)) return std::nullopt;
  if (field.cpp_type() == Field::CPPTYPE_INT32)
    return int64_t{reflection.GetInt32(message, &field)};
  return reflection.GetDouble(message, &field);
}

std::optional<engine::KnobValue> KnobOf(const v1::KnobValue& value) {
  switch (value.value_case()) {
    case v1::KnobValue::kNumber:
      return value.number();
    case v1::KnobValue::kInteger:
      return value.integer();
    case v1::KnobValue::kNumbers:
      return std::vector<double>(value.numbers().values().begin(), value.numbers().values().end());
    case v1::KnobValue::VALUE_NOT_SET:
      return std::nullopt;
  }
  return std::nullopt;
}

void CheckFinite(const std::string& field, const engine::KnobValue& value, Violations* violations) {
  if (const double* number = std::get_if<double>(&value)) CheckFinite(field, *number, violations);
  if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
    for (size_t i = 0; i < numbers->size(); ++i)
      CheckFinite(absl::StrCat(field, "[", i, "]"), (*numbers)[i], violations);
  }
}

engine::Knobs ToEngineKnobs(const v1::GenerateRequest& request, Violations* violations) {
  engine::Knobs knobs;
  if (const google::protobuf::FieldDescriptor* family = FamilyField(request)) {
    knobs.family = family->name();
    const google::protobuf::Message& message = request.GetReflection()->GetMessage(request, family);
    for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
      const google::protobuf::FieldDescriptor& field = *message.GetDescriptor()->field(i);
      std::optional<engine::KnobValue> value = KnobOf(message, field);
      if (!value) continue;
      CheckFinite(absl::StrCat(knobs.family, ".", field.name()), *value, violations);
      knobs.values.emplace(field.name(), *std::move(value));
    }
  }
  // In an order that does not change.
  const std::map<std::string, v1::KnobValue> named(request.knobs().begin(), request.knobs().end());
  for (const auto& [name, given] : named) {
    const std::string field = absl::StrCat("knobs[", name, "]");
    std::optional<engine::KnobValue> value = KnobOf(given);
    if (!value) {
      violations->push_back({field, "expected number, integer or numbers, got none"});
      continue;
    }
    CheckFinite(field, *value, violations);
    if (!knobs.values.emplace(name, *std::move(value)).second) {
      violations->push_back(
          {field, absl::StrCat("'", knobs.family, ".", name, "' gives the same knob")});
    }
  }
  return knobs;
}

// What the API's messages have no field for goes into the map.
void FromEngineKnobs(const engine::Knobs& knobs, v1::GenerateRequest* out) {
  out->clear_knobs();
  out->GetReflection()->ClearOneof(out, out->GetDescriptor()->FindOneofByName("family"));
  if (knobs.values.empty()) return;
  const google::protobuf::FieldDescriptor* const family = FamilyField(knobs.family);
  google::protobuf::Message* const message =
      family == nullptr ? nullptr : out->GetReflection()->MutableMessage(out, family);
  for (const auto& [name, value] : knobs.values) {
    const google::protobuf::FieldDescriptor* const field =
        message == nullptr ? nullptr : message->GetDescriptor()->FindFieldByName(name);
    const double* const number = std::get_if<double>(&value);
    const int64_t* const integer = std::get_if<int64_t>(&value);
    if (field == nullptr) {
      FromEngine(value, &(*out->mutable_knobs())[name]);
    } else if (number != nullptr) {
      message->GetReflection()->SetDouble(message, field, *number);
    } else if (integer != nullptr) {
      message->GetReflection()->SetInt32(message, field, static_cast<int32_t>(*integer));
    } else {
      for (const double each : std::get<std::vector<double>>(value))
        message->GetReflection()->AddDouble(message, field, each);
    }
  }
}

// Null for PLAN_MODE_UNSPECIFIED and values this version does not know.
const char* ModeText(v1::PlanMode mode) {
  switch (mode) {
    case v1::AUTO:
      return "auto";
    case v1::FASTEST:
      return "fastest";
    case v1::SMALLEST:
      return "smallest";
    default:
      return nullptr;
  }
}

}  // namespace

EngineRequest ToEngine(const v1::GenerateRequest& request) {
  EngineRequest result;
  engine::Request& out = result.request;
  Violations* violations = &result.violations;
  out.task = ToEngineTask(request.task(), violations);
  if (request.has_prompt()) out.prompt = request.prompt();
  if (request.has_negative_prompt()) out.negative_prompt = request.negative_prompt();
  if (request.has_height()) out.height = request.height();
  if (request.has_width()) out.width = request.width();
  if (request.has_num_frames()) out.num_frames = request.num_frames();
  if (request.has_num_inference_steps()) out.num_inference_steps = request.num_inference_steps();
  Take(request.has_guidance_scale(), request.guidance_scale(), "guidance_scale",
       &out.guidance_scale, violations);
  if (request.has_seed()) out.seed = request.seed();
  Take(request.has_fps(), request.fps(), "fps", &out.fps, violations);
  for (int i = 0; i < request.conditions_size(); ++i) {
    out.conditions.push_back(
        ToEngineCondition(request.conditions(i), absl::StrCat("conditions[", i, "]"), violations));
  }
  out.output = ToEngineOutput(request.output(), violations);
  out.plan = ToEngine(request.plan());
  if (!v1::PlanMode_IsValid(request.plan().mode())) {
    violations->push_back({"plan.mode", UnknownEnum("PlanMode", request.plan().mode())});
  }
  CheckFinite("plan.llm_int8_threshold", request.plan().llm_int8_threshold(), violations);
  if (request.preview().enabled()) {
    violations->push_back({"preview.enabled", "this version makes no previews"});
  }
  if (!v1::Priority_IsValid(request.priority())) {
    violations->push_back({"priority", UnknownEnum("Priority", request.priority())});
  }
  out.knobs = ToEngineKnobs(request, violations);
  return result;
}

void FromEngine(const engine::Request& request, v1::GenerateRequest* out) {
  out->set_task(FromEngine(request.task));
  // Set or cleared: what the engine's struct lacks must not survive in the message.
  request.prompt ? out->set_prompt(*request.prompt) : out->clear_prompt();
  request.negative_prompt ? out->set_negative_prompt(*request.negative_prompt)
                          : out->clear_negative_prompt();
  request.height ? out->set_height(*request.height) : out->clear_height();
  request.width ? out->set_width(*request.width) : out->clear_width();
  request.num_frames ? out->set_num_frames(*request.num_frames) : out->clear_num_frames();
  request.num_inference_steps ? out->set_num_inference_steps(*request.num_inference_steps)
                              : out->clear_num_inference_steps();
  request.guidance_scale ? out->set_guidance_scale(*request.guidance_scale)
                         : out->clear_guidance_scale();
  request.seed ? out->set_seed(*request.seed) : out->clear_seed();
  request.fps ? out->set_fps(*request.fps) : out->clear_fps();
  const int conditions = static_cast<int>(request.conditions.size());
  while (out->conditions_size() > conditions) out->mutable_conditions()->RemoveLast();
  while (out->conditions_size() < conditions) out->add_conditions();
  for (int i = 0; i < conditions; ++i) {
    const engine::Condition& condition = request.conditions[i];
    v1::Condition* message = out->mutable_conditions(i);
    switch (condition.kind) {
      case engine::ConditionKind::kImage:
        message->set_kind(v1::Condition::IMAGE);
        break;
      case engine::ConditionKind::kVideo:
        message->set_kind(v1::Condition::VIDEO);
        break;
      case engine::ConditionKind::kControlVideo:
        message->set_kind(v1::Condition::CONTROL_VIDEO);
        break;
    }
    message->set_frame_index(condition.frame_index);
    message->set_strength(condition.strength);
    condition.num_frames ? message->set_num_frames(*condition.num_frames)
                         : message->clear_num_frames();
  }
  out->mutable_output()->set_codec(v1::H264);
  out->mutable_output()->set_lossless(request.output.lossless);
  request.output.quality ? out->mutable_output()->set_quality(*request.output.quality)
                         : out->mutable_output()->clear_quality();
  *out->mutable_plan() = FromEngine(request.plan);
  FromEngineKnobs(request.knobs, out);
}

void FromEngine(const engine::KnobValue& value, v1::KnobValue* out) {
  if (const double* number = std::get_if<double>(&value)) {
    out->set_number(*number);
  } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    out->set_integer(*integer);
  } else {
    const std::vector<double>& numbers = std::get<std::vector<double>>(value);
    out->mutable_numbers()->mutable_values()->Assign(numbers.begin(), numbers.end());
  }
}

void FromEngine(const engine::KnobInfo& knob, v1::KnobInfo* out) {
  out->set_name(knob.name);
  switch (knob.type) {
    case engine::KnobType::kNumber:
      out->set_type(v1::KnobInfo::NUMBER);
      break;
    case engine::KnobType::kInteger:
      out->set_type(v1::KnobInfo::INTEGER);
      break;
    case engine::KnobType::kNumbers:
      out->set_type(v1::KnobInfo::NUMBERS);
      break;
  }
  out->set_min(knob.low);
  out->set_max(knob.high);
  out->set_help(knob.help);
  if (!knob.fallback) return;
  if (knob.type == engine::KnobType::kInteger) {
    out->mutable_default_()->set_integer(static_cast<int64_t>(*knob.fallback));
  } else {
    out->mutable_default_()->set_number(*knob.fallback);
  }
}

engine::Plan ToEngine(const v1::Plan& plan) {
  engine::Plan out;
  if (const char* mode = ModeText(plan.mode()); mode != nullptr) out.mode = mode;
  if (plan.has_offload()) out.offload = plan.offload();
  if (plan.has_weights_home()) out.weights_home = plan.weights_home();
  if (plan.has_prefetch()) out.prefetch = plan.prefetch();
  if (plan.has_storage_dtype()) out.storage_dtype = plan.storage_dtype();
  if (plan.has_quantize()) out.quantize = plan.quantize();
  out.quantize_skip.assign(plan.quantize_skip().begin(), plan.quantize_skip().end());
  if (plan.has_llm_int8_threshold()) out.llm_int8_threshold = plan.llm_int8_threshold();
  if (plan.has_chunk_feed_forward()) out.chunk_feed_forward = plan.chunk_feed_forward();
  if (plan.has_max_device_memory()) out.max_device_memory = plan.max_device_memory();
  if (plan.has_max_host_memory()) out.max_host_memory = plan.max_host_memory();
  if (plan.has_vae_tiling()) {
    const v1::VaeTiling& tiling = plan.vae_tiling();
    engine::VaeTiling& t = out.vae_tiling.emplace();
    if (tiling.has_tile_sample_min_height()) {
      t.tile_sample_min_height = tiling.tile_sample_min_height();
    }
    if (tiling.has_tile_sample_min_width()) {
      t.tile_sample_min_width = tiling.tile_sample_min_width();
    }
    if (tiling.has_tile_sample_min_num_frames()) {
      t.tile_sample_min_num_frames = tiling.tile_sample_min_num_frames();
    }
    if (tiling.has_tile_sample_stride_height()) {
      t.tile_sample_stride_height = tiling.tile_sample_stride_height();
    }
    if (tiling.has_tile_sample_stride_width()) {
      t.tile_sample_stride_width = tiling.tile_sample_stride_width();
    }
    if (tiling.has_tile_sample_stride_num_frames()) {
      t.tile_sample_stride_num_frames = tiling.tile_sample_stride_num_frames();
    }
    if (tiling.has_framewise()) t.framewise = tiling.framewise();
  }
  return out;
}

v1::Plan FromEngine(const engine::Plan& plan) {
  v1::Plan out;
  for (const v1::PlanMode mode : {v1::AUTO, v1::FASTEST, v1::SMALLEST}) {
    if (plan.mode == ModeText(mode)) out.set_mode(mode);
  }
  if (plan.offload) out.set_offload(*plan.offload);
  if (plan.weights_home) out.set_weights_home(*plan.weights_home);
  if (plan.prefetch) out.set_prefetch(*plan.prefetch);
  if (plan.storage_dtype) out.set_storage_dtype(*plan.storage_dtype);
  if (plan.quantize) out.set_quantize(*plan.quantize);
  out.mutable_quantize_skip()->Assign(plan.quantize_skip.begin(), plan.quantize_skip.end());
  if (plan.llm_int8_threshold) out.set_llm_int8_threshold(*plan.llm_int8_threshold);
  if (plan.chunk_feed_forward) out.set_chunk_feed_forward(*plan.chunk_feed_forward);
  if (plan.max_device_memory) out.set_max_device_memory(*plan.max_device_memory);
  if (plan.max_host_memory) out.set_max_host_memory(*plan.max_host_memory);
  if (plan.vae_tiling) {
    const engine::VaeTiling& tiling = *plan.vae_tiling;
    v1::VaeTiling* t = out.mutable_vae_tiling();
    if (tiling.tile_sample_min_height) {
      t->set_tile_sample_min_height(*tiling.tile_sample_min_height);
    }
    if (tiling.tile_sample_min_width) {
      t->set_tile_sample_min_width(*tiling.tile_sample_min_width);
    }
    if (tiling.tile_sample_min_num_frames) {
      t->set_tile_sample_min_num_frames(*tiling.tile_sample_min_num_frames);
    }
    if (tiling.tile_sample_stride_height) {
      t->set_tile_sample_stride_height(*tiling.tile_sample_stride_height);
    }
    if (tiling.tile_sample_stride_width) {
      t->set_tile_sample_stride_width(*tiling.tile_sample_stride_width);
    }
    if (tiling.tile_sample_stride_num_frames) {
      t->set_tile_sample_stride_num_frames(*tiling.tile_sample_stride_num_frames);
    }
    if (tiling.framewise) t->set_framewise(*tiling.framewise);
  }
  return out;
}

v1::Task FromEngine(engine::Task task) {
  switch (task) {
    case engine::Task::kUnspecified:
      return v1::TASK_UNSPECIFIED;
    case engine::Task::kTextToVideo:
      return v1::TEXT_TO_VIDEO;
    case engine::Task::kImageToVideo:
      return v1::IMAGE_TO_VIDEO;
    case engine::Task::kVideoToVideo:
      return v1::VIDEO_TO_VIDEO;
    case engine::Task::kUpscale:
      return v1::UPSCALE;
  }
  return v1::TASK_UNSPECIFIED;
}

}  // namespace kino::convert
