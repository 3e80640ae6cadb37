// Text and vision encoders in original single files (safetensors, GGUF): how their names become
// those that the encoders look up, and the config that such a file does not have. Each is a
// FindComponent for ComponentFiles::OpenOriginal. Pure functions; no torch.
#pragma once

#include "absl/status/statusor.h"
#include "engine/core/component_files.h"

namespace kino::engine {

// A LlamaEncoder's: safetensors with transformers' names (ComfyUI's llava_llama3 in
// fp16; its fp8 with scales is refused), or GGUF with llama.cpp's (blk.N.attn_q), whose config is
// in its metadata. Of the others, what shapes do not tell is taken from `folder_config`, or else is
// LLaMA-3's: heads of 128 numbers, rotary theta 500000, norms with 1e-5. NOT_FOUND: the file has
// none. UNIMPLEMENTED: a GGUF of another architecture, or with frequency factors (rope_freqs,
// LLaMA 3.1).
absl::StatusOr<FoundComponent> FindLlamaEncoder(const TensorFile& file,
                                                const nlohmann::json* folder_config);

// A ClipTextEncoder's: safetensors with transformers' names (text_model...), whatever stands before
// them in the file. What shapes do not tell is taken from
// `folder_config`, or else is CLIP ViT-L/14's: heads of 64 numbers, quick_gelu, the highest id ends
// the text. NOT_FOUND: the file has none.
absl::StatusOr<FoundComponent> FindClipTextEncoder(const TensorFile& file,
                                                   const nlohmann::json* folder_config);

}  // namespace kino::engine
