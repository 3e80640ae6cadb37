// Tensors in an unlinked temporary file, mapped: host memory that the system may take back, for
// weights whose stored form is not in the checkpoint. Written once, then read. One thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kino::engine {

class SpillFile {
 public:
  // Bytes of a tensor written at a time: Linux takes no more than 2 GiB in one call.
  static constexpr int64_t kWriteBytes = int64_t{1} << 30;

  // In $TMPDIR, or the system's temporary folder. Throws StatusError as the system says.
  explicit SpillFile(int64_t write_bytes = kWriteBytes);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  // Appends a contiguous CPU tensor. RESOURCE_EXHAUSTED (thrown): the disk is full.
  void Append(const at::Tensor& tensor);
  // Every tensor appended, in order, as read-only views that keep the mapping alive.
  std::vector<at::Tensor> Map() const;

 private:
  struct Entry {
    int64_t offset;
    std::vector<int64_t> shape;
    c10::ScalarType dtype;
  };
  const int64_t write_bytes_;
  int file_ = -1;
  int64_t end_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace kino::engine
