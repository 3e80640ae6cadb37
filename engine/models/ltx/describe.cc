#include "engine/models/ltx/describe.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/describe/conditions.h"
#include "engine/models/ltx/generation.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/transformer_config.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/weight_map.h"
#include "engine/text/t5_config.h"

namespace kino::engine {
namespace {

// LTXPipeline and LTXImageToVideoPipeline refuse other sizes whatever the VAE's ratio is
// (check_inputs).
constexpr int kSizeMultiple = 32;

class LtxDescription final : public FamilyDescription {
 public:
  LtxDescription(const LtxVaeConfig& vae, const FlowMatchEulerConfig& sampler)
      : spatial_ratio_(static_cast<int>(vae.spatial_compression_ratio)),
        temporal_ratio_(static_cast<int>(vae.temporal_compression_ratio)),
        sampler_(sampler) {
    // Defaults of LTXPipeline.__call__ and LTXImageToVideoPipeline.__call__ in diffusers 0.42.1.
    Request defaults;
    defaults.negative_prompt = "";
    defaults.height = 512;
    defaults.width = 704;
    defaults.num_frames = 161;
    defaults.num_inference_steps = 50;
    defaults.guidance_scale = 3.0;
    defaults.fps = 25.0;
    defaults.output.quality = 75;
    for (const Task task : {Task::kTextToVideo, Task::kImageToVideo}) {
      defaults.task = task;
      tasks_.push_back({.task = task, .defaults = defaults});
    }
    limits_ = {.size_multiple = kSizeMultiple,
               .min_size = kSizeMultiple,
               .max_size = 4096,
               .frames_multiple = temporal_ratio_,
               .max_frames = 2048 * temporal_ratio_ + 1,
               .max_pixels = 1'000'000'000,
               .max_steps = 1000};
  }

  const std::vector<TaskDescription>& tasks() const override { return tasks_; }
  const Limits& limits() const override { return limits_; }
  const VaeTileSizes& vae_tiles() const override { return kLtxTiles; }
  void Resolve(Request& request, std::vector<FieldViolation>& violations) const override;

 private:
  int spatial_ratio_;
  int temporal_ratio_;
  FlowMatchEulerConfig sampler_;
  std::vector<TaskDescription> tasks_;
  Limits limits_;
};

void LtxDescription::Resolve(Request& request, std::vector<FieldViolation>& violations) const {
  const auto fail = [&violations](const std::string& field, const std::string& description) {
    violations.push_back({.field = field, .description = description});
  };
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  if (!knobs.decode_noise_scale && knobs.decode_timestep)
    request.knobs.values.emplace("decode_noise_scale", *knobs.decode_timestep);

  // A custom schedule falls from noise to picture.
  const auto check_schedule = [&](const char* field, const std::vector<double>& values) {
    if (values.size() > static_cast<size_t>(limits_.max_steps)) {
      fail(field,
           absl::StrCat("expected at most ", limits_.max_steps, " values, got ", values.size()));
    }
    for (size_t i = 0; i < values.size(); ++i) {
      if (!(values[i] >= 0)) return;  // reported already
      if (values[i] == 0 || (i > 0 && !(values[i] < values[i - 1]))) {
        fail(field, absl::StrCat("expected falling values above 0, got ", values[i], " at ", i));
        return;
      }
    }
    if (!values.empty()) request.num_inference_steps = static_cast<int>(values.size());
  };
  if (!knobs.timesteps.empty() && !knobs.sigmas.empty())
    fail("ltx.sigmas", "timesteps and sigmas exclude each other");
  check_schedule("ltx.timesteps", knobs.timesteps);
  check_schedule("ltx.sigmas", knobs.sigmas);

  if (violations.empty()) {
    const int64_t frames = (*request.num_frames - 1) / temporal_ratio_ + 1;
    const int64_t tokens =
        frames * (*request.height / spatial_ratio_) * (*request.width / spatial_ratio_);
    const absl::Status schedule_status = LtxSchedule(sampler_, request, tokens).status();
    if (!schedule_status.ok()) {
      fail("num_inference_steps", absl::StrCat("no schedule for ", tokens, " latent tokens: ",
                                               std::string(schedule_status.message())));
    }
  }

  if (request.task == Task::kImageToVideo)
    ExpectOneCondition(request, ConditionKind::kImage, /*fully=*/true, violations);
}

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeLtx(const ModelSource& source) {
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
  KINO_ASSIGN_OR_RETURN(
      const FlowMatchEulerConfig sampler,
      ReadConfig<FlowMatchEulerConfig>(source.folder + "/scheduler/scheduler_config.json"));
  return std::make_shared<LtxDescription>(vae, sampler);
}

}  // namespace

absl::StatusOr<FlowMatchSchedule> LtxSchedule(const FlowMatchEulerConfig& sampler,
                                              const Request& request, int64_t tokens) {
  ScheduleRequest schedule;
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  schedule.timesteps = knobs.timesteps;
  schedule.sigmas = knobs.sigmas;
  if (schedule.timesteps.empty() && schedule.sigmas.empty()) {
    const int steps = *request.num_inference_steps;
    schedule.sigmas = Linspace(1.0, 1.0 / steps, steps);
  }
  schedule.mu = CalculateShift(sampler, tokens);
  return MakeSchedule(sampler, schedule);
}

FamilyDescriber LtxDescriber() {
  return {.family = "ltx",
          .pipeline_classes = {"LTXPipeline", "LTXImageToVideoPipeline"},
          .describe = DescribeLtx,
          .generation = LtxGeneration,
          .find_transformer = FindLtxTransformer,
          .knobs = KnobInfos(kLtxKnobs)};
}

}  // namespace kino::engine
