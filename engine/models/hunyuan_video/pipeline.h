// HunyuanVideo's pipelines (diffusers 0.42.1 pipelines/hunyuan_video): text_to_video,
// image_to_video of three kinds, and FramePack. One thread at a time.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "engine/models/common/image_processor.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/hunyuan_video/describe.h"
#include "engine/models/hunyuan_video/transformer.h"
#include "engine/models/hunyuan_video/vae.h"
#include "engine/samplers/flow_match_euler.h"
#include "engine/text/bpe_tokenizer.h"
#include "engine/text/clip_text_encoder.h"
#include "engine/text/llama_encoder.h"
#include "engine/text/prompt_template.h"
#include "engine/text/vision_encoder.h"

namespace kino::engine {

// What a run reads. Runs share it.
struct HunyuanVideoComponents {
  HunyuanVideoKind kind = HunyuanVideoKind::kText;
  // On meta tensors perhaps none.
  std::shared_ptr<const BpeTokenizer> tokenizer, tokenizer_2;
  std::shared_ptr<LlamaEncoder> text_encoder;
  std::shared_ptr<ClipTextEncoder> text_encoder_2;
  // LLaVA's tower or, of FramePack, SigLIP; others have none.
  std::shared_ptr<VisionEncoder> image_encoder;
  std::optional<ImageProcessor> image_processor;
  std::shared_ptr<HunyuanVideoTransformer> transformer;
  std::shared_ptr<HunyuanVideoVae> vae;
  FlowMatchEulerConfig sampler;
};

absl::StatusOr<std::unique_ptr<Pipeline>> LoadHunyuanVideoPipeline(const PipelineOptions& options,
                                                                   EngineShared& shared);

}  // namespace kino::engine
