#include "engine/models/hunyuan_video/pipeline.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/common/component_loading.h"
#include "engine/models/hunyuan_video/framepack_run.h"
#include "engine/models/hunyuan_video/run.h"
#include "engine/models/hunyuan_video/weight_map.h"
#include "engine/text/encoder_files.h"

namespace kino::engine {
namespace {

absl::Status LoadImageEncoder(const PipelineOptions& options, EngineShared& shared,
                              HunyuanVideoComponents& components) {
  const ImageReader* const reader = ImageReaderOf(components.kind);
  if (reader == nullptr) return absl::OkStatus();
  KINO_ASSIGN_OR_RETURN(
      const ComponentFiles files,
      ComponentFiles::Open(absl::StrCat(options.folder, "/", reader->encoder), options.variant));
  KINO_ASSIGN_OR_RETURN(components.image_encoder,
                        PooledComponent<VisionEncoder>(files, options, shared, "image_encoder"));
  const VisionEncoder& encoder = *components.image_encoder;
  if (ReadsImage(components.kind)) {
    KINO_RETURN_IF_ERROR(CheckFit(options, "the image encoder's number of tokens", encoder.tokens(),
                                  "that of the prompt's template", kImageTokens));
    KINO_RETURN_IF_ERROR(CheckFit(options, "the width of its features", encoder.width(),
                                  "the text encoder's hidden_size",
                                  components.text_encoder->width()));
  } else {
    KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's image_proj_dim",
                                  components.transformer->config().image_proj_dim,
                                  "the image encoder's hidden_size", encoder.width()));
  }
  KINO_ASSIGN_OR_RETURN(const auto processor,
                        ReadConfig<ImageProcessorConfig>(reader->ProcessorPath(options.folder)));
  components.image_processor.emplace(processor);
  return absl::OkStatus();
}

// In the order in which a run needs them.
std::vector<PipelineComponent> Moved(const HunyuanVideoComponents& components) {
  std::vector<PipelineComponent> moved;
  if (ReadsImage(components.kind))
    moved.push_back({"image_encoder", components.image_encoder, {Stage::kEncodeText}, false});
  moved.push_back({"text_encoder", components.text_encoder, {Stage::kEncodeText}, false});
  moved.push_back({"text_encoder_2", components.text_encoder_2, {Stage::kEncodeText}, false});
  if (components.kind == HunyuanVideoKind::kFramePack)
    moved.push_back({"image_encoder", components.image_encoder, {Stage::kEncodeMedia}, false});
  moved.push_back({"transformer", components.transformer, {Stage::kDenoise}, false});
  std::vector<Stage> of_vae = {Stage::kEncodeMedia, Stage::kDecode};
  if (!components.vae->config().has_encoder) of_vae.erase(of_vae.begin());
  moved.push_back({"vae", components.vae, std::move(of_vae), true});
  return moved;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> LoadHunyuanVideoPipeline(const PipelineOptions& options,
                                                                   EngineShared& shared) {
  auto components = std::make_shared<HunyuanVideoComponents>();
  KINO_ASSIGN_OR_RETURN(
      components->sampler,
      ReadConfig<FlowMatchEulerConfig>(options.folder + "/scheduler/scheduler_config.json"));
  KINO_ASSIGN_OR_RETURN(components->tokenizer,
                        FolderTokenizer(options, "tokenizer", &BpeTokenizer::LoadByteLevel));
  KINO_ASSIGN_OR_RETURN(components->tokenizer_2,
                        FolderTokenizer(options, "tokenizer_2", &BpeTokenizer::LoadClip));
  KINO_ASSIGN_OR_RETURN(
      components->text_encoder,
      FolderComponent<LlamaEncoder>(options, shared, "text_encoder", FindLlamaEncoder));
  KINO_ASSIGN_OR_RETURN(
      components->text_encoder_2,
      FolderComponent<ClipTextEncoder>(options, shared, "text_encoder_2", FindClipTextEncoder));
  KINO_ASSIGN_OR_RETURN(components->transformer,
                        FolderComponent<HunyuanVideoTransformer>(options, shared, "transformer",
                                                                 FindHunyuanVideoTransformer));
  const HunyuanVideoTransformerConfig& transformer = components->transformer->config();
  KINO_ASSIGN_OR_RETURN(ComponentFiles vae,
                        ComponentFiles::Open(options.folder + "/vae", options.variant));
  KINO_ASSIGN_OR_RETURN(const HunyuanVideoVaeConfig vae_config,
                        HunyuanVideoVaeConfig::FromJson(vae.config, vae.config_path));
  KINO_ASSIGN_OR_RETURN(components->kind,
                        HunyuanVideoKindOf(transformer, vae_config, options.folder));
  vae.config["has_encoder"] = components->kind != HunyuanVideoKind::kText;
  KINO_ASSIGN_OR_RETURN(components->vae,
                        PooledComponent<HunyuanVideoVae>(vae, options, shared, "vae"));
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's text_embed_dim",
                                transformer.text_embed_dim, "the text encoder's hidden_size",
                                components->text_encoder->width()));
  KINO_RETURN_IF_ERROR(CheckFit(
      options, "the transformer's pooled_projection_dim", transformer.pooled_projection_dim,
      "the second text encoder's hidden_size", components->text_encoder_2->width()));
  KINO_RETURN_IF_ERROR(LoadImageEncoder(options, shared, *components));
  return MakePipeline(std::shared_ptr<const HunyuanVideoComponents>(components), Moved(*components),
                      shared, [](auto inputs) -> std::unique_ptr<PipelineRun> {
                        if (inputs.components->kind == HunyuanVideoKind::kFramePack)
                          return std::make_unique<FramePackRun>(std::move(inputs));
                        return std::make_unique<HunyuanVideoClipRun>(std::move(inputs));
                      });
}

}  // namespace kino::engine
