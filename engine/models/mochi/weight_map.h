// Mochi-1's transformer under Genmo's own names: single files (safetensors, ComfyUI's among them)
// and GGUF. The key map is that of diffusers 0.42.1 loaders/single_file_utils.py
// convert_mochi_transformer_checkpoint_to_diffusers, but for the halves it swaps: rows of gates and
// values, shifts and scales stay in Genmo's order, which the config tells the transformer
// (original_layout). No torch. Thread-safe.
#pragma once

#include "engine/core/component_files.h"

namespace kino::engine {

// A FindComponent. All of the config is in the shapes; the folder's is not looked at.
// NOT_FOUND: no Mochi transformer in the file. INVALID_ARGUMENT: shapes of no such model.
absl::StatusOr<FoundComponent> FindMochiTransformer(const TensorFile& file,
                                                    const nlohmann::json* folder_config);

}  // namespace kino::engine
