// One file of tensors, mapped read-only and checked whole when opened: safetensors or GGUF, told
// apart by what is in it. Immutable after Open, thread-safe. Tensor bytes live as long as the
// TensorFile.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/core/mapped_file.h"
#include "engine/core/tensor_entry.h"

namespace kino::engine {

class TensorFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED: as the system says. INVALID_ARGUMENT: malformed, or pickled,
  // which Kino never reads. UNIMPLEMENTED: a GGUF type Kino does not know.
  static absl::StatusOr<std::shared_ptr<const TensorFile>> Open(const std::string& path);
  virtual ~TensorFile() = default;
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  // By the file's own names.
  const TensorMap& tensors() const { return tensors_; }
  // What the file says of itself in strings: "__metadata__" of safetensors, GGUF's string values.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  // Equal for equal files.
  const std::string& identity() const { return file_.identity(); }

 protected:
  TensorFile(std::string path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  MappedFile file_;
  TensorMap tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace kino::engine
