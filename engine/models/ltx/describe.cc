#include "engine/models/ltx/describe.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/describe/conditions.h"
#include "engine/models/ltx/describe_upscale.h"
#include "engine/models/ltx/generation.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/latent_upsampler_config.h"
#include "engine/models/ltx/long_windows.h"
#include "engine/models/ltx/transformer_config.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/weight_map.h"
#include "engine/samplers/first_step.h"
#include "engine/text/t5_config.h"

namespace kino::engine {
namespace {

// The pipelines refuse other sizes whatever the VAE's ratio is (check_inputs).
constexpr int kSizeMultiple = 32;
constexpr char kConditionPipeline[] = "LTXConditionPipeline";
constexpr char kLongPipeline[] = "LTXI2VLongMultiPromptPipeline";
// Of a video that is made in one, or of a window: what the transformer sees.
constexpr int64_t kMaxPixelsAtOnce = 1'000'000'000;

// What it fills in beside temporal_tile_size.
const std::map<std::string, KnobValue>& LongKnobs() {
  static const auto& knobs =
      *new std::map<std::string, KnobValue>{{"temporal_overlap", int64_t{24}},
                                            {"temporal_overlap_cond_strength", 0.5},
                                            {"adain_factor", 0.25},
                                            {"skip_steps_sigma_threshold", 1.0},
                                            {"decode_horizontal_tiles", int64_t{4}},
                                            {"decode_vertical_tiles", int64_t{4}},
                                            {"decode_overlap", int64_t{3}}};
  return knobs;
}

int PassesOf(const LtxKnobs& knobs) {
  const bool has_second =
      knobs.second_pass_steps || knobs.second_pass_strength || !knobs.second_pass_timesteps.empty();
  return knobs.passes.value_or(has_second ? 2 : 1);
}

// What is there for two passes, from the operator's configuration perhaps.
void DropSecondPass(Knobs& knobs) {
  for (const char* const knob : {"tone_map_compression_ratio", "second_pass_steps",
                                 "second_pass_timesteps", "second_pass_strength"})
    knobs.values.erase(knob);
  knobs.values.emplace("passes", int64_t{1});
}

class LtxDescription final : public FixedDescription {
 public:
  // upsampler: the folder's, if it has one.
  LtxDescription(const LtxVaeConfig& vae, const LtxSampler& sampler,
                 const std::optional<LtxLatentUpsamplerConfig>& upsampler,
                 const std::string& pipeline_class)
      : FixedDescription(kLtxTiles),
        upsampler_(upsampler),
        names_condition_pipeline_(pipeline_class == kConditionPipeline),
        spatial_ratio_(static_cast<int>(vae.spatial_compression_ratio)),
        temporal_ratio_(static_cast<int>(vae.temporal_compression_ratio)),
        sampler_(sampler) {
    // Defaults of the pipelines' __call__ in diffusers 0.42.1.
    Request defaults;
    defaults.negative_prompt = "";
    defaults.height = 512;
    defaults.width = 704;
    defaults.num_frames = 161;
    defaults.num_inference_steps = 50;
    defaults.guidance_scale = 3.0;
    defaults.fps = 25.0;
    defaults.output.quality = 75;
    const bool is_long = pipeline_class == kLongPipeline;
    if (is_long) {
      defaults.num_inference_steps = 8;
      defaults.guidance_scale = 1.0;
      defaults.knobs.values = {{"temporal_tile_size", int64_t{80}},
                               {"decode_timestep", 0.05},
                               {"decode_noise_scale", 0.025}};
    }
    for (const Task task : {Task::kTextToVideo, Task::kImageToVideo, Task::kVideoToVideo}) {
      if (is_long && task == Task::kVideoToVideo) continue;
      defaults.task = task;
      tasks_.push_back({.task = task, .defaults = defaults});
    }
    limits_ = UsualLimits(kSizeMultiple, temporal_ratio_);
    limits_.max_pixels = 16 * kMaxPixelsAtOnce;
  }

  absl::Status CheckTiling(const Request& request, const VaeTiling& tiling) const override {
    // A tile of a long video's decode has to come out of its own tiles as large as it is.
    if (request.conditions.empty() && !RunsLongPipeline(request)) return absl::OkStatus();
    return CheckWholeTiles(tiling, spatial_ratio_, temporal_ratio_);
  }
  void Resolve(Request& request, std::vector<FieldViolation>& violations) const override;

 private:
  void ResolveConditions(Request& request, std::vector<FieldViolation>& violations) const;
  void ResolvePasses(Request& request, std::vector<FieldViolation>& violations) const;
  // `strength`: the field that is to say how many of its steps run.
  void CheckPass(const Request& pass, const char* strength,
                 std::vector<FieldViolation>& violations) const;
  void ResolveLong(Request& request, std::vector<FieldViolation>& violations) const;

  std::optional<LtxLatentUpsamplerConfig> upsampler_;
  bool names_condition_pipeline_;
  int spatial_ratio_;
  int temporal_ratio_;
  LtxSampler sampler_;
};

void LtxDescription::Resolve(Request& request, std::vector<FieldViolation>& violations) const {
  const FailInto fail{violations};
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  if (!knobs.decode_noise_scale && knobs.decode_timestep)
    request.knobs.values.emplace("decode_noise_scale", *knobs.decode_timestep);

  const bool is_long = RunsLongPipeline(request);
  if (is_long) {
    ResolveLong(request, violations);
  } else {
    ResolvePasses(request, violations);
    ResolveConditions(request, violations);
  }

  // A custom schedule falls from noise to picture.
  const auto check_schedule = [&](const char* field, const std::vector<double>& values,
                                  bool may_close) {
    if (values.size() > static_cast<size_t>(limits_.max_steps)) {
      fail(field,
           absl::StrCat("expected at most ", limits_.max_steps, " values, got ", values.size()));
    }
    for (size_t i = 0; i < values.size(); ++i) {
      if (!(values[i] >= 0)) return;  // reported already
      const bool closes = may_close && i > 0 && i + 1 == values.size();
      if ((values[i] == 0 && !closes) || (i > 0 && !(values[i] < values[i - 1]))) {
        fail(field,
             absl::StrCat("expected falling values above 0", may_close ? " or a closing 0" : "",
                          ", got ", values[i], " at ", i));
        return;
      }
    }
  };
  if (!knobs.timesteps.empty() && !knobs.sigmas.empty())
    fail("ltx.sigmas", "timesteps and sigmas exclude each other");
  const bool may_close = is_long || RunsConditionPipeline(request);  // with a 0
  check_schedule("ltx.timesteps", knobs.timesteps, may_close);
  check_schedule("ltx.sigmas", knobs.sigmas, may_close);
  check_schedule("ltx.second_pass_timesteps", knobs.second_pass_timesteps, /*may_close=*/true);
  const size_t steps = std::max(knobs.timesteps.size(), knobs.sigmas.size());
  if (steps > 0) request.num_inference_steps = static_cast<int>(steps);
  if (!violations.empty()) return;
  const std::vector<Request> passes = LtxPasses(request);
  CheckPass(passes.front(), "ltx.denoise_strength", violations);
  if (passes.size() > 1) CheckPass(passes.back(), "ltx.second_pass_strength", violations);
}

void LtxDescription::CheckPass(const Request& pass, const char* strength,
                               std::vector<FieldViolation>& violations) const {
  const FailInto fail{violations};
  const int64_t frames = (*pass.num_frames - 1) / temporal_ratio_ + 1;
  const int64_t tokens = frames * (*pass.height / spatial_ratio_) * (*pass.width / spatial_ratio_);
  const absl::Status schedule_status = RunsLongPipeline(pass)
                                           ? LtxLongSchedule(sampler_, pass).status()
                                           : LtxSchedule(sampler_.table, pass, tokens).status();
  if (!schedule_status.ok()) {
    fail("num_inference_steps", absl::StrCat("no schedule for ", tokens, " latent tokens: ",
                                             std::string(schedule_status.message())));
  }
  const int steps = *pass.num_inference_steps;
  const double share = ReadKnobs(kLtxKnobs, pass.knobs).denoise_strength.value_or(1);
  if (FirstStepAt(steps, share) == steps) {
    fail(strength, absl::StrCat(share, " of ", steps, " steps leaves none, expected at least one"));
  }
}

// Decides how many passes there are and fills the knobs that the second one has.
void LtxDescription::ResolvePasses(Request& request,
                                   std::vector<FieldViolation>& violations) const {
  const FailInto fail{violations};
  std::map<std::string, KnobValue>& values = request.knobs.values;
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  if (PassesOf(knobs) == 1) {
    if (knobs.adain_factor.value_or(0) != 0 && !knobs.passes)
      fail("ltx.adain_factor", "is of two passes and of videos in windows, got neither");
    if (knobs.tone_map_compression_ratio.value_or(0) != 0 && !knobs.passes)
      fail("ltx.tone_map_compression_ratio", "is of two passes, got one");
    values.erase("adain_factor");
    DropSecondPass(request.knobs);
    return;
  }
  if (!upsampler_ || upsampler_->factors() != Stride3d{1, 2, 2}) {
    fail("ltx.passes", absl::StrCat("2 needs a latent upsampler that doubles height and width; ",
                                    upsampler_ ? "the model's does something else"
                                               : "the model's folder has no latent_upsampler"));
    return;
  }
  const int multiple = 2 * kSizeMultiple;
  for (const auto& [field, value] :
       {std::pair{"height", *request.height}, {"width", *request.width}}) {
    if (value % multiple != 0)
      fail(field, absl::StrCat("two passes need a multiple of ", multiple, ", got ", value));
  }
  if (knobs.second_pass_strength.value_or(0) >= 1)
    fail("ltx.second_pass_strength", "at 1 nothing of the first pass is left, expected below 1");
  const size_t given = knobs.second_pass_timesteps.size();
  if (given > 0) values["second_pass_steps"] = static_cast<int64_t>(given);
  values.emplace("passes", int64_t{2});
  values.emplace("second_pass_steps", int64_t{10});
  values.emplace("second_pass_strength", 0.4);
  values.emplace("adain_factor", 0.0);
  values.emplace("tone_map_compression_ratio", 0.0);
}

// Decides which pipeline runs the request and fills the knobs that it has.
void LtxDescription::ResolveConditions(Request& request,
                                       std::vector<FieldViolation>& violations) const {
  const FailInto fail{violations};
  for (const auto& [name, value] : LongKnobs()) {
    if (!request.knobs.values.contains(name) || name == "adain_factor") continue;
    fail("ltx." + name, "is of a video in windows, got no temporal_tile_size; give that too");
  }
  const int64_t pixels = int64_t{*request.height} * *request.width;
  if (violations.empty() && pixels * *request.num_frames > kMaxPixelsAtOnce) {
    fail("num_frames", absl::StrCat("without windows (temporal_tile_size) height * width * ",
                                    "num_frames may be at most ", kMaxPixelsAtOnce, ", got ",
                                    pixels * *request.num_frames));
  }
  const std::vector<Condition>& conditions = request.conditions;
  if (request.task != Task::kTextToVideo && conditions.empty()) {
    fail("conditions", absl::StrCat(TaskName(request.task), " takes at least one, got none"));
  }
  if (request.task == Task::kImageToVideo) {
    for (size_t i = 0; i < conditions.size(); ++i) {
      if (conditions[i].kind == ConditionKind::kImage) continue;
      fail(
          absl::StrCat("conditions[", i, "].kind"),
          absl::StrCat("IMAGE_TO_VIDEO takes images, got ", ConditionKindName(conditions[i].kind)));
    }
  }
  // LTXImageToVideoPipeline knows one image, which is the first frame.
  const bool is_first_frame = conditions.size() == 1 && conditions[0].frame_index == 0 &&
                              conditions[0].strength == 1 &&
                              conditions[0].kind == ConditionKind::kImage;
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  const bool by_conditions = names_condition_pipeline_ || knobs.denoise_strength ||
                             knobs.image_cond_noise_scale || knobs.passes == 2 ||
                             (request.task != Task::kTextToVideo && !is_first_frame);
  const auto fill = [&request](const char* knob, KnobValue value) {
    request.knobs.values.emplace(knob, std::move(value));
  };
  fill("max_sequence_length", int64_t{by_conditions ? 256 : 128});
  if (!by_conditions) return;
  fill("denoise_strength", 1.0);
  if (request.task != Task::kTextToVideo) fill("image_cond_noise_scale", 0.15);
}

void LtxDescription::ResolveLong(Request& request, std::vector<FieldViolation>& violations) const {
  const FailInto fail{violations};
  for (const char* name : {"denoise_strength", "image_cond_noise_scale", "timesteps", "passes",
                           "second_pass_timesteps", "second_pass_steps", "second_pass_strength",
                           "tone_map_compression_ratio"}) {
    if (!request.knobs.values.contains(name)) continue;
    fail(absl::StrCat("ltx.", name),
         absl::StrCat("a video in windows (temporal_tile_size) has none; leave one of the two out",
                      name == std::string_view("timesteps") ? ", or give sigmas" : ""));
  }
  if (request.task == Task::kImageToVideo)
    ExpectOneCondition(request, ConditionKind::kImage, /*fully=*/false, violations);
  for (const auto& [name, value] : LongKnobs()) request.knobs.values.emplace(name, value);
  request.knobs.values.emplace("max_sequence_length", int64_t{128});
  if (!violations.empty()) return;

  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  const LtxWindowSizes sizes(knobs, temporal_ratio_);
  const int64_t frames = (*request.num_frames - 1) / temporal_ratio_ + 1;
  const int64_t seen = sizes.tile < frames ? sizes.tile + sizes.overlap : frames;
  const int64_t pixels = seen * temporal_ratio_ * *request.height * *request.width;
  if (pixels > kMaxPixelsAtOnce) {
    fail("ltx.temporal_tile_size",
         absl::StrCat("height * width * frames of a window and its overlap may be at most ",
                      kMaxPixelsAtOnce, ", got ", pixels));
  }
  // Upstream fails then, or gives the first window alone.
  if (sizes.tile < frames && sizes.overlap >= sizes.tile) {
    fail("ltx.temporal_overlap",
         absl::StrCat("expected latent frames fewer than a window's ", sizes.tile, ", got ",
                      sizes.overlap, " (", *knobs.temporal_overlap, " pixel frames)"));
  }
  const auto check_tiles = [&](const char* knob, int tiles, const char* what, int size) {
    const int overlap = *knobs.decode_overlap;
    const int64_t latents = size / spatial_ratio_;
    if (tiles == 1 || EvenTile(latents, tiles, overlap) >= std::max(overlap, 1)) return;
    fail(absl::StrCat("ltx.", knob),
         absl::StrCat("no ", tiles, " tiles that share decode_overlap = ", overlap, " of ", latents,
                      " latents (", what, " ", size, "); give 1, or a smaller decode_overlap"));
  };
  check_tiles("decode_horizontal_tiles", *knobs.decode_horizontal_tiles, "width", *request.width);
  check_tiles("decode_vertical_tiles", *knobs.decode_vertical_tiles, "height", *request.height);
}

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeLtx(const ModelSource& source) {
  if (source.pipeline_class == kLtxUpscaleClass) return DescribeLtxUpscale(source);
  const std::string vae_path = source.folder + "/vae/config.json";
  KINO_ASSIGN_OR_RETURN(const LtxVaeConfig vae, ReadConfig<LtxVaeConfig>(vae_path));
  const int64_t spatial = vae.spatial_compression_ratio, temporal = vae.temporal_compression_ratio;
  if (spatial < 1 || spatial > kSizeMultiple || temporal < 1 || temporal > 64) {
    return absl::InvalidArgumentError(
        absl::StrCat(vae_path, ": compression ratios ", spatial, " in space and ", temporal,
                     " in time, expected 1 to ", kSizeMultiple, " and 1 to 64"));
  }
  // Nothing more is needed of these, but they must be such that the model can be loaded.
  KINO_RETURN_IF_ERROR(
      LtxTransformerConfig::FromJson(source.transformer_config, source.transformer_config_path)
          .status());
  KINO_RETURN_IF_ERROR(
      ReadConfig<T5EncoderConfig>(source.folder + "/text_encoder/config.json").status());
  const std::string sampler_path = source.folder + "/scheduler/scheduler_config.json";
  KINO_ASSIGN_OR_RETURN(const LtxSampler sampler, ReadConfig<LtxSampler>(sampler_path));
  if (sampler.ancestral && source.pipeline_class != kLongPipeline) {
    return absl::InvalidArgumentError(absl::StrCat(
        sampler_path, ": LTXEulerAncestralRFScheduler is ", kLongPipeline, "'s, but the folder is ",
        "one of ", source.pipeline_class, ", expected FlowMatchEulerDiscreteScheduler"));
  }
  const std::string upsampler_path = source.folder + "/latent_upsampler/config.json";
  std::optional<LtxLatentUpsamplerConfig> upsampler;
  if (std::filesystem::exists(upsampler_path)) {
    KINO_ASSIGN_OR_RETURN(upsampler, ReadConfig<LtxLatentUpsamplerConfig>(upsampler_path));
  }
  return std::make_shared<LtxDescription>(vae, sampler, upsampler, source.pipeline_class);
}

}  // namespace

std::vector<Request> LtxPasses(const Request& request) {
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  if (knobs.passes.value_or(1) == 1) return {request};
  Request first = request, second = request;
  first.height = *request.height / 2;
  first.width = *request.width / 2;
  std::map<std::string, KnobValue>& values = second.knobs.values;
  values.erase("timesteps");
  values.erase("sigmas");
  if (!knobs.second_pass_timesteps.empty()) values["timesteps"] = knobs.second_pass_timesteps;
  values["denoise_strength"] = *knobs.second_pass_strength;
  second.num_inference_steps = *knobs.second_pass_steps;
  return {first, second};
}

absl::StatusOr<LtxSampler> LtxSampler::FromJson(const nlohmann::json& json,
                                                const std::string& where) {
  LtxSampler sampler;
  nlohmann::json table = json;
  if (json.is_object() && json.contains("_class_name") &&
      json["_class_name"] == "LTXEulerAncestralRFScheduler") {
    KINO_ASSIGN_OR_RETURN(sampler.ancestral, EulerAncestralRfConfig::FromJson(json, where));
    table.erase("_class_name");  // whatever else it holds is the table's
  }
  KINO_ASSIGN_OR_RETURN(sampler.table, FlowMatchEulerConfig::FromJson(table, where));
  return sampler;
}

bool RunsLongPipeline(const Request& request) {
  return ReadKnobs(kLtxKnobs, request.knobs).temporal_tile_size.has_value() &&
         (OnlyTask(request.task) & kLongTasks) != 0;
}

bool RunsConditionPipeline(const Request& request) {
  return ReadKnobs(kLtxKnobs, request.knobs).denoise_strength.has_value();
}

namespace {

// Where the sampler shifts by the number of tokens, which these pipelines do not tell it, nothing
// is shifted; diffusers refuses.
FlowMatchEulerConfig WithoutDynamicShift(const FlowMatchEulerConfig& sampler) {
  if (!sampler.use_dynamic_shifting) return sampler;
  return {.num_train_timesteps = sampler.num_train_timesteps};
}

}  // namespace

absl::StatusOr<FlowMatchSchedule> LtxSchedule(const FlowMatchEulerConfig& sampler,
                                              const Request& request, int64_t tokens) {
  ScheduleRequest schedule;
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  schedule.timesteps = knobs.timesteps;
  schedule.sigmas = knobs.sigmas;
  const int steps = *request.num_inference_steps;
  if (RunsConditionPipeline(request)) {
    if (schedule.sigmas.empty() && schedule.timesteps.empty())
      schedule.sigmas = LinearQuadraticSchedule(steps);
    // It passes timesteps, rounded as they are multiplied, whatever it starts from.
    for (const double sigma : schedule.sigmas)
      schedule.timesteps.push_back(static_cast<float>(sigma) * 1000.0f);
    schedule.sigmas.clear();
    return MakeSchedule(WithoutDynamicShift(sampler), schedule);
  }
  if (schedule.timesteps.empty() && schedule.sigmas.empty())
    schedule.sigmas = Linspace(1.0, 1.0 / steps, steps);
  schedule.mu = CalculateShift(sampler, tokens);
  return MakeSchedule(sampler, schedule);
}

absl::StatusOr<FlowMatchSchedule> LtxLongSchedule(const LtxSampler& sampler,
                                                  const Request& request) {
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  const FlowMatchEulerConfig table = WithoutDynamicShift(sampler.table);
  const ScheduleRequest asked = {.num_inference_steps = *request.num_inference_steps,
                                 .sigmas = knobs.sigmas};
  KINO_ASSIGN_OR_RETURN(const FlowMatchSchedule all, sampler.ancestral
                                                         ? MakeAncestralRfSchedule(table, asked)
                                                         : MakeSchedule(table, asked));
  // Upstream's loop is over timesteps[:-1], whatever the list is: without sigmas of the request's
  // own the last step, to 0, is left out, and the noise of the last level stays in the picture.
  const size_t end = all.timesteps.size() - 1;
  size_t first = 0;
  const double highest = *knobs.skip_steps_sigma_threshold;
  while (first < end && highest > 0 && all.sigmas[first] > highest) ++first;
  if (first == end) {
    return absl::InvalidArgumentError(absl::StrCat(
        "of ", all.timesteps.size(), " timesteps the last is no step's and ", first,
        " begin above skip_steps_sigma_threshold ", highest, ", expected at least one step"));
  }
  const auto from = static_cast<std::ptrdiff_t>(first), to = static_cast<std::ptrdiff_t>(end);
  return FlowMatchSchedule{.sigmas = {all.sigmas.begin() + from, all.sigmas.begin() + to + 1},
                           .timesteps = {all.timesteps.begin() + from, all.timesteps.begin() + to}};
}

FamilyDescriber LtxDescriber() {
  return {.family = "ltx",
          .pipeline_classes = {"LTXPipeline", "LTXImageToVideoPipeline", kConditionPipeline,
                               kLongPipeline, kLtxUpscaleClass},
          .describe = DescribeLtx,
          .generation = LtxGeneration,
          .find_original = {{"transformer", FindLtxTransformer}},
          .knobs = KnobInfos(kLtxKnobs),
          .optional_components = {"latent_upsampler"}};
}

}  // namespace kino::engine
