// A strict reader of one safetensors file: the header is checked whole before any tensor is looked
// at, the data stays in the mapped file. Immutable after Open, thread-safe. Tensor bytes live as
// long as the SafetensorsFile. Format: https://github.com/huggingface/safetensors#format (8-byte
// little-endian header length, JSON header, data).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/dtype.h"

namespace kino::engine {

// One tensor of a checkpoint, where it lies in the mapped file.
struct TensorEntry {
  DType dtype;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  std::string file;  // for messages
};

class SafetensorsFile {
 public:
  // Maps the file read-only. NOT_FOUND, PERMISSION_DENIED: as the system says. INVALID_ARGUMENT:
  // malformed; the message names the tensor, its offsets and the file.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::map<std::string, TensorEntry, std::less<>>& tensors() const { return tensors_; }
  // "__metadata__": string to string.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

 private:
  SafetensorsFile(void* map, size_t size) : map_(map), size_(size) {}
  absl::Status Parse(const std::string& path);

  void* map_;
  size_t size_;
  std::map<std::string, TensorEntry, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace kino::engine
