// What is asked of a device once and kept, since a driver takes its time to tell. Thread-safe.
#pragma once

#include <map>
#include <mutex>

namespace kino::engine {

template <typename T>
class PerDevice {
 public:
  // ask() unless it was asked of this device before. What throws is asked again.
  template <typename Ask>
  const T& Get(int index, const Ask& ask) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = kept_.find(index);
    if (found != kept_.end()) return found->second;
    return kept_.emplace(index, ask()).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<int, T> kept_;  // guarded by mutex_; entries stay where they are
};

}  // namespace kino::engine
