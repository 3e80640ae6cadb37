// HunyuanVideo's own knobs, named as diffusers 0.42.1 pipelines/hunyuan_video names its arguments.
// Values; no torch.
#pragma once

#include <optional>

#include "engine/describe/request.h"

namespace kino::engine {

struct HunyuanVideoKnobs {
  std::optional<int> max_sequence_length;
  std::optional<double> true_cfg_scale;
  std::optional<int> image_embed_interleave, sampling_type, latent_window_size;
};

// Values of `sampling_type`.
enum : int { kInvertedAntiDrifting = 0, kVanilla = 1 };

inline constexpr KnobField<HunyuanVideoKnobs> kHunyuanVideoKnobs[] = {
    Knob<&HunyuanVideoKnobs::max_sequence_length>(
        "max_sequence_length", 1, 1024, 256, "Text tokens, those of the prompt's template apart."),
    Knob<&HunyuanVideoKnobs::true_cfg_scale>(
        "true_cfg_scale", 0, 1000, std::nullopt,
        "Classifier-free guidance, where it is above 1 and a negative_prompt is given; each step "
        "takes twice the time then. Default: 6 for SkyReels-V1's image to video, else 1."),
    Knob<&HunyuanVideoKnobs::image_embed_interleave>(
        "image_embed_interleave", 1, 576, std::nullopt,
        "Of the 576 tokens that LLaVA makes of the image every so manieth goes to the transformer; "
        "all from 6 on, as in diffusers. Default: 4 for checkpoints that replace the first frame, "
        "2 for those that concatenate it.",
        OnlyTask(Task::kImageToVideo)),
    Knob<&HunyuanVideoKnobs::sampling_type>(
        "sampling_type", kInvertedAntiDrifting, kVanilla, std::nullopt,
        "FramePack's order of sections. 0 (default): inverted_anti_drifting, from the end to the "
        "start. 1: vanilla, from the start to the end, as FramePack F1 needs it; each section "
        "leaves once it is made.",
        OnlyTask(Task::kImageToVideo)),
    Knob<&HunyuanVideoKnobs::latent_window_size>(
        "latent_window_size", 1, 64, std::nullopt,
        "Latent frames of one of FramePack's sections. Default: 9.", OnlyTask(Task::kImageToVideo)),
};

}  // namespace kino::engine
