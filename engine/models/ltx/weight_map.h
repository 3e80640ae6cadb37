// LTX-Video under its original names: single files (safetensors or GGUF) of the transformer, the
// VAE or both, as Lightricks and the GGUF converters publish them. Their key maps (diffusers 0.42.1
// loaders/single_file_utils.py convert_ltx_{transformer,vae}_checkpoint_to_diffusers; 0.9.0, 0.9.1,
// 0.9.5 and later) and the configs that diffusers would fetch, read from the tensors' shapes.
// Values only; no torch. Thread-safe.
#pragma once

#include "absl/status/statusor.h"
#include "engine/core/checkpoint.h"
#include "engine/core/tensor_file.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// A component of an original file: for Checkpoint::FromFile, and as its config.json would say.
struct LtxFileComponent {
  KeyMap map;
  nlohmann::json config;
};

bool HoldsLtxTransformer(const TensorFile& file);
bool HoldsLtxVae(const TensorFile& file);

// `folder_config`: of the transformer whose place the file takes, or nullptr. It is the config
// where the file's shapes fit it; else sizes come from the shapes, and the number of heads, which
// no shape tells, from the file's own metadata or, for the published widths, 32. NOT_FOUND: no
// LTX-Video transformer in the file. INVALID_ARGUMENT: shapes of no such model, or a width whose
// number of heads nothing tells. UNIMPLEMENTED: LTX-2.
absl::StatusOr<LtxFileComponent> LtxTransformerInFile(const TensorFile& file,
                                                      const nlohmann::json* folder_config);

// NOT_FOUND: no LTX-Video VAE in the file. INVALID_ARGUMENT: shapes of no such model.
absl::StatusOr<LtxFileComponent> LtxVaeInFile(const TensorFile& file);

}  // namespace kino::engine
