// What of a model's folder looks at an image for what it shows: a vision encoder, and the processor
// that makes its pixels. No torch.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace kino::engine {

struct ImageReader {
  const char* model_type;  // of the encoder's config
  // Folders.
  const char *encoder, *processor;

  // The processor's config in a model's folder.
  std::string ProcessorPath(const std::string& folder) const;
  // Whether both configs are there and go together. NOT_FOUND: one is not there. UNIMPLEMENTED:
  // another type of encoder, or what VisionEncoderConfig and ImageProcessorConfig refuse.
  // INVALID_ARGUMENT: the processor's pictures are not of the encoder's size.
  absl::Status Check(const std::string& folder) const;
};

}  // namespace kino::engine
