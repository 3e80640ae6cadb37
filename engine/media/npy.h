// NumPy's .npy files: reading arrays of uint8 and float32, and writing float32 frames [T, H, W, 3]
// as they come. Format: numpy.lib.format, versions 1.0 and 2.0, little-endian, C order; everything
// else is refused. ReadNpy is pure; an NpyWriter belongs to one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::engine {

enum class NpyType { kUint8, kFloat32 };

struct NpyArray {
  NpyType type = NpyType::kUint8;
  std::vector<int64_t> shape;
  std::string
      data;  // the elements in C order; size equals the shape's product times the element's bytes

  int64_t element_count() const;
};

// INVALID_ARGUMENT naming what is wrong: magic, version, header, type, order, or a data size unlike
// the shape's.
absl::StatusOr<NpyArray> ParseNpy(std::string_view bytes);
// The same from a file; NOT_FOUND when it cannot be opened. Reads at most `max_bytes`,
// RESOURCE_EXHAUSTED beyond.
absl::StatusOr<NpyArray> ReadNpy(const std::string& path, int64_t max_bytes = 8LL << 30);

// Writes a header for no frames at once and mends it in Finish; a file whose writer was not
// finished holds no frame.
class NpyWriter {
 public:
  // INVALID_ARGUMENT for sides below 1, PERMISSION_DENIED or NOT_FOUND when the file cannot be
  // made.
  static absl::StatusOr<std::unique_ptr<NpyWriter>> Create(const std::string& path, int height,
                                                           int width);
  NpyWriter(const NpyWriter&) = delete;
  NpyWriter& operator=(const NpyWriter&) = delete;

  // frame: [H, W, 3] float32. A failed write (a full disk) is RESOURCE_EXHAUSTED or INTERNAL, and
  // stays so.
  absl::Status AddFrame(const float* frame);
  // Writes the number of frames into the header and closes the file. REQUIRES: called at most once,
  // last.
  absl::Status Finish();

  int64_t num_frames() const { return num_frames_; }

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  NpyWriter(std::string path, int height, int width, std::unique_ptr<std::FILE, CloseFile> file)
      : path_(std::move(path)), height_(height), width_(width), file_(std::move(file)) {}

  absl::Status WriteHeader();
  absl::Status WriteError() const;

  const std::string path_;
  const int height_;
  const int width_;
  int64_t num_frames_ = 0;
  std::unique_ptr<std::FILE, CloseFile> file_;
};

}  // namespace kino::engine
