#include "engine/memory/spill_file.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

constexpr int64_t kAlignment = 64;

[[noreturn]] void Fail(const char* what, int error) {
  const std::string message =
      absl::StrCat("a temporary file for stored weights: ", what, ": ", strerror(error));
  throw StatusError(error == ENOSPC || error == EDQUOT ? absl::ResourceExhaustedError(message)
                                                       : absl::UnavailableError(message));
}

class Mapping {
 public:
  Mapping(int file, int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    address_ = mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, file, 0);
    if (address_ == MAP_FAILED) Fail("mmap", errno);
  }
  ~Mapping() { munmap(address_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::byte* at(int64_t offset) const { return static_cast<std::byte*>(address_) + offset; }

 private:
  size_t bytes_;
  void* address_;
};

void WriteAll(int file, const char* data, size_t bytes, int64_t offset, size_t at_once) {
  while (bytes > 0) {
    const ssize_t written = pwrite(file, data, std::min(bytes, at_once), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) Fail("write", written == 0 ? ENOSPC : errno);
    data += written;
    bytes -= static_cast<size_t>(written);
    offset += written;
  }
}

}  // namespace

SpillFile::SpillFile(int64_t write_bytes) : write_bytes_(write_bytes) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (error) Fail("no temporary folder", error.value());
  std::string path = (folder / "kino-weights-XXXXXX").string();
  file_ = mkostemp(path.data(), O_CLOEXEC);
  if (file_ < 0) Fail(path.c_str(), errno);
  unlink(path.c_str());
}

SpillFile::~SpillFile() { close(file_); }

void SpillFile::Append(const at::Tensor& tensor) {
  WriteAll(file_, static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes(), end_,
           static_cast<size_t>(write_bytes_));
  entries_.push_back({end_, tensor.sizes().vec(), tensor.scalar_type()});
  end_ = (end_ + static_cast<int64_t>(tensor.nbytes()) + kAlignment - 1) / kAlignment * kAlignment;
}

std::vector<at::Tensor> SpillFile::Map() const {
  std::vector<at::Tensor> tensors;
  if (end_ == 0) return tensors;
  const auto mapping = std::make_shared<const Mapping>(file_, end_);
  for (const Entry& entry : entries_) {
    tensors.push_back(at::from_blob(
        mapping->at(entry.offset), entry.shape, [mapping](void*) {},
        at::TensorOptions().dtype(entry.dtype)));
  }
  return tensors;
}

}  // namespace kino::engine
