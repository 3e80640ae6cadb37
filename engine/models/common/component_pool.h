// Components held once, however many models name them. One thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"

namespace kino::engine {

class ComponentPool {
 public:
  // The component under `key`, made by `load` unless a model still holds it. Keys name the type,
  // the files' identity and what is computed with; equal keys must mean equal components.
  template <typename T>
  absl::StatusOr<std::shared_ptr<T>> Get(
      const std::string& key, const std::function<absl::StatusOr<std::shared_ptr<T>>()>& load) {
    std::weak_ptr<const void>& entry = components_[key];
    if (const std::shared_ptr<const void> held = entry.lock()) {
      return std::static_pointer_cast<T>(std::const_pointer_cast<void>(held));
    }
    absl::StatusOr<std::shared_ptr<T>> loaded = load();
    if (loaded.ok()) entry = *loaded;
    return loaded;
  }

 private:
  std::unordered_map<std::string, std::weak_ptr<const void>> components_;
};

}  // namespace kino::engine
