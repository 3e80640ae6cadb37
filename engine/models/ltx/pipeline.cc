#include "engine/models/ltx/pipeline.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "engine/core/status.h"
#include "engine/models/common/component_loading.h"
#include "engine/models/ltx/describe_upscale.h"
#include "engine/models/ltx/long_run.h"
#include "engine/models/ltx/run.h"
#include "engine/models/ltx/upscale_run.h"
#include "engine/models/ltx/weight_map.h"

namespace kino::engine {

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxPipeline(const PipelineOptions& options,
                                                          EngineShared& shared) {
  if (options.pipeline_class == kLtxUpscaleClass) return LoadLtxUpscalePipeline(options, shared);
  auto components = std::make_shared<LtxComponents>();
  KINO_RETURN_IF_ERROR(components->Load(options, shared, FindLtxTransformer));
  KINO_RETURN_IF_ERROR(CheckFit(
      options, "the transformer's in_channels", components->transformer->config().in_channels,
      "the VAE's latent_channels", components->vae->config().latent_channels));
  std::vector<PipelineComponent> moved = components->Moved(/*encodes=*/true);
  if (std::filesystem::exists(options.folder + "/latent_upsampler/config.json")) {
    KINO_ASSIGN_OR_RETURN(components->latent_upsampler,
                          LoadLatentUpsampler(options, shared, *components->vae));
    moved.push_back({"latent_upsampler", components->latent_upsampler, {Stage::kUpscale}, false});
  }
  return MakePipeline(std::shared_ptr<const LtxComponents>(components), std::move(moved), shared,
                      [](auto inputs) -> std::unique_ptr<PipelineRun> {
                        if (RunsLongPipeline(inputs.request))
                          return std::make_unique<LtxLongRun>(std::move(inputs));
                        return std::make_unique<LtxRun>(std::move(inputs));
                      });
}

}  // namespace kino::engine
