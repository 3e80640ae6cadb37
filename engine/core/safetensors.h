// A strict reader of one safetensors file: the header is checked whole before any tensor is looked
// at, the data stays in the mapped file. Immutable after Open, thread-safe. Tensor bytes live as
// long as the SafetensorsFile. Format: https://github.com/huggingface/safetensors#format (8-byte
// little-endian header length, JSON header, data).
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/tensor_file.h"

namespace kino::engine {

class SafetensorsFile final : public TensorFile {
 public:
  // Maps the file read-only. NOT_FOUND, PERMISSION_DENIED: as the system says. INVALID_ARGUMENT:
  // malformed; the message names the tensor, its offsets and the file.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

 private:
  using TensorFile::TensorFile;
  absl::Status Parse();
};

}  // namespace kino::engine
