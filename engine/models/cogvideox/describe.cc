#include "engine/models/cogvideox/describe.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/describe/conditions.h"
#include "engine/models/cogvideox/knobs.h"
#include "engine/models/cogvideox/transformer_config.h"
#include "engine/models/cogvideox/vae_config.h"
#include "engine/samplers/ddim.h"
#include "engine/text/t5_config.h"

namespace kino::engine {
namespace {

constexpr char kImageToVideo[] = "CogVideoXImageToVideoPipeline";

class CogVideoXDescription final : public FixedDescription {
 public:
  CogVideoXDescription(const CogVideoXTransformerConfig& transformer, const CogVideoXVaeConfig& vae,
                       const DdimConfig& sampler, bool takes_image)
      : FixedDescription(vae.tile_sizes()),
        transformer_(transformer),
        vae_(vae),
        sampler_(sampler),
        sees_condition_(transformer.in_channels != vae.latent_channels) {
    // Defaults of the pipelines' __call__ in diffusers 0.42.1, and the models' frames per second.
    Request defaults;
    defaults.negative_prompt = "";
    defaults.height = transformer.sample_height * vae.spatial_ratio();
    defaults.width = transformer.sample_width * vae.spatial_ratio();
    defaults.num_frames = takes_image ? 49 : transformer.sample_frames;
    defaults.num_inference_steps = 50;
    defaults.guidance_scale = 6.0;
    defaults.fps = transformer.patch_size_t > 0 ? 16.0 : 8.0;
    defaults.output.quality = 75;
    // A checkpoint that sees a video beside the latents may name the plain pipeline (Fun does).
    std::vector<Task> tasks = {takes_image ? Task::kImageToVideo : Task::kVideoToVideo};
    if (!sees_condition_) tasks.insert(tasks.begin(), Task::kTextToVideo);
    for (const Task task : tasks) {
      defaults.task = task;
      tasks_.push_back({.task = task, .defaults = defaults});
    }
    limits_ = UsualLimits(vae.spatial_ratio() * transformer.patch_size, vae.temporal_ratio);
    limits_.frames_multiple = 1;
  }

  int FramesOf(Task, int frames) const override { return vae_.frames(vae_.latent_frames(frames)); }
  absl::Status CheckTiling(const Request& request, const VaeTiling& tiling) const override {
    if (request.conditions.empty()) return absl::OkStatus();
    const OverlappingTiles tiles(tiles_, tiling);
    const int ratio = vae_.spatial_ratio();
    return CheckEncodeTiles(*request.height, *request.width, tiles.PixelGrid(),
                            tiles.LatentGrid(ratio), ratio);
  }
  void FillFromConditions(const Request& configured, Request& request) const override;
  void Resolve(Request& request, std::vector<FieldViolation>& violations) const override;

 private:
  void ResolveVideo(const Request& request, const FailInto& fail) const;

  CogVideoXTransformerConfig transformer_;
  CogVideoXVaeConfig vae_;
  DdimConfig sampler_;
  bool sees_condition_;
};

// Of a video all frames are used, or as many as are asked for. How many that are says how they are
// encoded, and other than that many may come out: 16 of 13 to 16.
void CogVideoXDescription::FillFromConditions(const Request& configured, Request& request) const {
  if (request.task != Task::kVideoToVideo || request.conditions.size() != 1) return;
  Condition& video = request.conditions[0];
  if (video.kind == ConditionKind::kImage) return;
  if (!video.num_frames) {
    const int usual = configured.num_frames.value_or(*tasks_.back().defaults.num_frames);
    const int all = video.size ? video.size->num_frames : usual;
    video.num_frames =
        request.num_frames.value_or(std::min(all, configured.num_frames.value_or(all)));
  }
  if (!request.num_frames) request.num_frames = video.num_frames;
}

void CogVideoXDescription::ResolveVideo(const Request& request, const FailInto& fail) const {
  const Condition& video = request.conditions[0];
  const int used = *video.num_frames, given = *request.num_frames;
  const int latents = vae_.latent_frames(used), come_out = vae_.frames(latents);
  const int patch = transformer_.patch_frames();
  if (video.size && used > video.size->num_frames) {
    fail("num_frames", absl::StrCat("the video has ", video.size->num_frames,
                                    " frames, expected at most that many, got ", used));
  } else if (given != come_out) {
    fail("num_frames", absl::StrCat(come_out, " come out of the ", used,
                                    " frames of conditions[0].num_frames, got ", given,
                                    "; leave one of the two out"));
  } else if (latents % patch != 0) {
    fail("num_frames",
         absl::StrCat("the VAE makes ", latents, " latent ones of ", used,
                      " frames, expected a multiple of ", patch, ", which it makes of ",
                      vae_.frames(latents > patch ? latents - latents % patch : patch)));
  }
}

void CogVideoXDescription::Resolve(Request& request,
                                   std::vector<FieldViolation>& violations) const {
  const FailInto fail{violations};
  if (!violations.empty()) return;
  const int ratio = vae_.spatial_ratio();
  for (const auto& [field, value, sample] :
       {std::tuple{"height", *request.height, transformer_.sample_height * ratio},
        std::tuple{"width", *request.width, transformer_.sample_width * ratio}}) {
    const bool is_fixed = transformer_.use_learned_positional_embeddings;
    if (is_fixed ? value != sample : transformer_.patch_size_t > 0 && value > sample) {
      fail(field, absl::StrCat("the model has positions for ", is_fixed ? "" : "at most ", sample,
                               ", got ", value));
    }
  }
  const int text = *ReadKnobs(kCogVideoXKnobs, request.knobs).max_sequence_length;
  if (transformer_.adds_positions() && text != transformer_.max_text_seq_length) {
    fail("cogvideox.max_sequence_length",
         absl::StrCat("the model has positions for ", transformer_.max_text_seq_length,
                      " text tokens, got ", text));
  }
  if (request.task != Task::kTextToVideo) {
    const bool is_image = request.task == Task::kImageToVideo;
    const ConditionKind kind = is_image          ? ConditionKind::kImage
                               : sees_condition_ ? ConditionKind::kControlVideo
                                                 : ConditionKind::kVideo;
    ExpectOneCondition(request, kind, /*fully=*/kind != ConditionKind::kVideo, violations);
    if (!violations.empty()) return;
    if (!is_image) ResolveVideo(request, fail);
  }
  const double strength = request.conditions.empty() ? 1 : request.conditions[0].strength;
  const absl::Status schedule =
      MakeDdimSchedule(sampler_, *request.num_inference_steps, strength).status();
  if (!schedule.ok()) fail("num_inference_steps", std::string(schedule.message()));
}

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeCogVideoX(
    const ModelSource& source) {
  KINO_ASSIGN_OR_RETURN(const CogVideoXTransformerConfig transformer,
                        CogVideoXTransformerConfig::FromJson(source.transformer_config,
                                                             source.transformer_config_path));
  KINO_ASSIGN_OR_RETURN(const CogVideoXVaeConfig vae,
                        ReadConfig<CogVideoXVaeConfig>(source.folder + "/vae/config.json"));
  // Nothing more is needed of it, but it must be such that the model can be loaded.
  KINO_RETURN_IF_ERROR(
      ReadConfig<T5EncoderConfig>(source.folder + "/text_encoder/config.json").status());
  KINO_ASSIGN_OR_RETURN(const DdimConfig sampler,
                        ReadConfig<DdimConfig>(source.folder + "/scheduler/scheduler_config.json"));
  const int own = vae.latent_channels, seen = transformer.in_channels;
  const bool takes_image = source.pipeline_class == kImageToVideo;
  if (transformer.out_channels != own || !(seen == 2 * own || (seen == own && !takes_image)) ||
      transformer.temporal_compression_ratio != vae.temporal_ratio) {
    return absl::UnimplementedError(
        absl::StrCat(source.transformer_config_path, ": in_channels is ", seen, ", out_channels ",
                     transformer.out_channels, " and temporal_compression_ratio ",
                     transformer.temporal_compression_ratio, ", expected ",
                     takes_image ? "" : absl::StrCat("the VAE's ", own, " or "), "twice the VAE's ",
                     own, ", ", own, " and ", vae.temporal_ratio));
  }
  return std::make_shared<CogVideoXDescription>(transformer, vae, sampler, takes_image);
}

std::string CogVideoXGeneration(const ModelSource& source) {
  const auto config = CogVideoXTransformerConfig::FromJson(source.transformer_config,
                                                           source.transformer_config_path);
  if (!config.ok() || config->attention_head_dim != 64 || config->out_channels != 16) return "";
  const bool rotary = config->use_rotary_positional_embeddings;
  const bool learned = config->use_learned_positional_embeddings;
  const bool sees_condition = config->in_channels != config->out_channels;
  if (config->num_layers == 30 && config->num_attention_heads == 30) {
    if (rotary || learned || config->patch_size_t > 0) return "";
    return sees_condition ? "CogVideoX-Fun-2b" : "CogVideoX-2b";
  }
  if (config->num_layers != 42 || config->num_attention_heads != 48 || !rotary) return "";
  const bool sees_image = config->patch_size_t > 0 ? config->ofs_embed_dim > 0 : learned;
  if (sees_image && !sees_condition) return "";
  if (config->patch_size_t > 0) {
    if (sees_condition && !sees_image) return "";
    return sees_image ? "CogVideoX1.5-5B-I2V" : "CogVideoX1.5-5B";
  }
  return sees_image ? "CogVideoX-5b-I2V" : sees_condition ? "CogVideoX-Fun-5b" : "CogVideoX-5b";
}

}  // namespace

FamilyDescriber CogVideoXDescriber() {
  return {.family = "cogvideox",
          .pipeline_classes = {"CogVideoXPipeline", kImageToVideo, "CogVideoXVideoToVideoPipeline",
                               "CogVideoXFunControlPipeline"},
          .describe = DescribeCogVideoX,
          .generation = CogVideoXGeneration,
          .find_original = {},
          .knobs = KnobInfos(kCogVideoXKnobs)};
}

}  // namespace kino::engine
