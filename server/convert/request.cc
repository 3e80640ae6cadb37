#include "server/convert/request.h"

#include <cmath>
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

void TakeAll(const google::protobuf::RepeatedField<double>& values, const std::string& field,
             std::vector<double>* out, Violations* violations) {
  for (int i = 0; i < values.size(); ++i) {
    CheckFinite(absl::StrCat(field, "[", i, "]"), values[i], violations);
    out->push_back(values[i]);
  }
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

engine::LtxOptions ToEngineLtx(const v1::LtxOptions& ltx, Violations* violations) {
  engine::LtxOptions out;
  Take(ltx.has_frame_rate(), ltx.frame_rate(), "ltx.frame_rate", &out.frame_rate, violations);
  Take(ltx.has_guidance_rescale(), ltx.guidance_rescale(), "ltx.guidance_rescale",
       &out.guidance_rescale, violations);
  Take(ltx.has_decode_timestep(), ltx.decode_timestep(), "ltx.decode_timestep",
       &out.decode_timestep, violations);
  Take(ltx.has_decode_noise_scale(), ltx.decode_noise_scale(), "ltx.decode_noise_scale",
       &out.decode_noise_scale, violations);
  if (ltx.has_max_sequence_length()) out.max_sequence_length = ltx.max_sequence_length();
  TakeAll(ltx.timesteps(), "ltx.timesteps", &out.timesteps, violations);
  TakeAll(ltx.sigmas(), "ltx.sigmas", &out.sigmas, violations);
  if (!out.timesteps.empty() && !out.sigmas.empty()) {
    violations->push_back(
        {"ltx.sigmas", absl::StrCat("expected timesteps or sigmas, got ", out.timesteps.size(),
                                    " timesteps and ", out.sigmas.size(), " sigmas")});
  }
  Take(ltx.has_image_cond_noise_scale(), ltx.image_cond_noise_scale(), "ltx.image_cond_noise_scale",
       &out.image_cond_noise_scale, violations);
  Take(ltx.has_denoise_strength(), ltx.denoise_strength(), "ltx.denoise_strength",
       &out.denoise_strength, violations);
  Take(ltx.has_adain_factor(), ltx.adain_factor(), "ltx.adain_factor", &out.adain_factor,
       violations);
  Take(ltx.has_tone_map_compression_ratio(), ltx.tone_map_compression_ratio(),
       "ltx.tone_map_compression_ratio", &out.tone_map_compression_ratio, violations);
  return out;
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

v1::LtxOptions FromEngineLtx(const engine::LtxOptions& ltx) {
  v1::LtxOptions out;
  if (ltx.frame_rate) out.set_frame_rate(*ltx.frame_rate);
  if (ltx.guidance_rescale) out.set_guidance_rescale(*ltx.guidance_rescale);
  if (ltx.decode_timestep) out.set_decode_timestep(*ltx.decode_timestep);
  if (ltx.decode_noise_scale) out.set_decode_noise_scale(*ltx.decode_noise_scale);
  if (ltx.max_sequence_length) out.set_max_sequence_length(*ltx.max_sequence_length);
  out.mutable_timesteps()->Assign(ltx.timesteps.begin(), ltx.timesteps.end());
  out.mutable_sigmas()->Assign(ltx.sigmas.begin(), ltx.sigmas.end());
  if (ltx.image_cond_noise_scale) out.set_image_cond_noise_scale(*ltx.image_cond_noise_scale);
  if (ltx.denoise_strength) out.set_denoise_strength(*ltx.denoise_strength);
  if (ltx.adain_factor) out.set_adain_factor(*ltx.adain_factor);
  if (ltx.tone_map_compression_ratio) {
    out.set_tone_map_compression_ratio(*ltx.tone_map_compression_ratio);
  }
  return out;
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
  switch (request.family_case()) {
    case v1::GenerateRequest::kLtx:
      out.ltx = ToEngineLtx(request.ltx(), violations);
      break;
    case v1::GenerateRequest::FAMILY_NOT_SET:
      break;
    default: {
      const auto* field =
          v1::GenerateRequest::descriptor()->FindFieldByNumber(request.family_case());
      violations->push_back(
          {field->name(), "this version runs no model of that family, so its knobs do not apply"});
    }
  }
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
  }
  out->mutable_output()->set_codec(v1::H264);
  out->mutable_output()->set_lossless(request.output.lossless);
  request.output.quality ? out->mutable_output()->set_quality(*request.output.quality)
                         : out->mutable_output()->clear_quality();
  *out->mutable_plan() = FromEngine(request.plan);
  if (request.ltx) {
    *out->mutable_ltx() = FromEngineLtx(*request.ltx);
  } else if (out->has_ltx()) {
    out->clear_ltx();
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
    t.framewise = tiling.framewise();
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
    t->set_framewise(tiling.framewise);
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
