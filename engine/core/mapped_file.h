// A file mapped read-only, until the object goes. Immutable, thread-safe.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace kino::engine {

class MappedFile {
 public:
  // `kind` ("safetensors") stands in front of the path in messages. NOT_FOUND, PERMISSION_DENIED:
  // as the system says. INVALID_ARGUMENT: not a regular file.
  static absl::StatusOr<MappedFile> Open(const std::string& path, const char* kind);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  // Nullptr for an empty file.
  const std::byte* data() const { return static_cast<const std::byte*>(map_); }
  size_t size() const { return size_; }
  // Device, inode, size and change time: equal for equal files.
  const std::string& identity() const { return identity_; }

 private:
  MappedFile(void* map, size_t size, std::string identity);

  void* map_;
  size_t size_;
  std::string identity_;
};

}  // namespace kino::engine
