// HunyuanVideo's transformer under its original names: single files (safetensors) and GGUF, in
// Tencent's naming and in the one that ComfyUI saves, with or without a prefix. The key map is that
// of diffusers 0.42.1 loaders/single_file_utils.py convert_hunyuan_video_transformer_to_diffusers,
// but for the halves of the last norm, which stay in Tencent's order; the config tells the
// transformer so (original_layout). ComfyUI's names: its HunyuanVideo.process_unet_state_dict
// (comfy/supported_models.py). No torch. Thread-safe.
#pragma once

#include "engine/core/component_files.h"

namespace kino::engine {

// A FindComponent. The config is read from the shapes; what they do not tell (image_condition_type
// of 16 channels, rope_theta and its axes) is the folder's where that one has the same sizes, else
// the published models'. NOT_FOUND: no HunyuanVideo transformer in the file. INVALID_ARGUMENT:
// shapes of no such model.
absl::StatusOr<FoundComponent> FindHunyuanVideoTransformer(const TensorFile& file,
                                                           const nlohmann::json* folder_config);

}  // namespace kino::engine
