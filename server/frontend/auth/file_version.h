// Whether files are others than they were. One thread at a time.
#pragma once

#include <sys/stat.h>

#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace kino::frontend {

class FileVersion {
 public:
  explicit FileVersion(std::vector<std::string> paths) : paths_(std::move(paths)) {}

  // Since the last call; true at the first one. By what a write or a rename changes. A link is
  // followed, as secrets are mounted by links that are exchanged.
  bool HasChanged() {
    std::vector<Marks> now;
    for (const std::string& path : paths_) now.push_back(Look(path));
    return std::exchange(last_, now) != now;
  }

 private:
  using Marks = std::tuple<dev_t, ino_t, off_t, time_t, long>;
  static Marks Look(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) return {};
    return {info.st_dev, info.st_ino, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
  }

  const std::vector<std::string> paths_;  // at least one
  std::vector<Marks> last_;
};

}  // namespace kino::frontend
