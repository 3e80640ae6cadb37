// LTX-Video's transformer under its original names: single files (safetensors or GGUF), as
// Lightricks and the GGUF converters publish them. The key map is that of diffusers 0.42.1
// loaders/single_file_utils.py convert_ltx_transformer_checkpoint_to_diffusers (0.9.0, 0.9.1, 0.9.5
// and later); the config that diffusers would fetch is read from the tensors' shapes. No torch.
// Thread-safe.
#pragma once

#include "engine/core/component_files.h"

namespace kino::engine {

// A FindComponent. The folder's config is taken where the file's shapes fit it; else sizes come
// from the shapes, and the number of heads, which no shape tells, from the file's own metadata or,
// for the published widths, 32. NOT_FOUND: no LTX-Video transformer in the file. INVALID_ARGUMENT:
// shapes of no such model, or a width whose number of heads nothing tells. UNIMPLEMENTED: LTX-2.
absl::StatusOr<FoundComponent> FindLtxTransformer(const TensorFile& file,
                                                  const nlohmann::json* folder_config);

}  // namespace kino::engine
