// A strict reader of one GGUF file (version 2 and 3, little-endian): the header is checked whole
// before any tensor is looked at, the data stays in the mapped file. Immutable after Open,
// thread-safe. Tensor bytes live as long as the GgufFile. Format:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (magic, version, counts, key-value
// pairs, tensor infos, aligned data).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/core/tensor_file.h"

namespace kino::engine {

class GgufFile final : public TensorFile {
 public:
  // Maps the file read-only. NOT_FOUND, PERMISSION_DENIED: as the system says. INVALID_ARGUMENT:
  // malformed; the message names the key or tensor, its place and the file. UNIMPLEMENTED: a tensor
  // type that is none of F32, F16, BF16 and GgmlType, big-endian, or one file of several.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);

  // The integers and the floats among the file's values; its strings are metadata(). Arrays and
  // what is above int64 are checked and left out.
  const std::map<std::string, int64_t, std::less<>>& integers() const { return integers_; }
  const std::map<std::string, double, std::less<>>& floats() const { return floats_; }

 private:
  using TensorFile::TensorFile;
  absl::Status Parse();

  std::map<std::string, int64_t, std::less<>> integers_;
  std::map<std::string, double, std::less<>> floats_;
};

}  // namespace kino::engine
