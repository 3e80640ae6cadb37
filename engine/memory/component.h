// A component of a model (text encoder, transformer, VAE) as the engine moves it: its weights, and
// where they are. Components derive from it; pipelines and runs hold them by this face. One thread
// at a time.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/core/component_files.h"
#include "engine/core/status.h"
#include "engine/memory/residency.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class Component {
 public:
  virtual ~Component() = default;
  Component(const Component&) = delete;
  Component& operator=(const Component&) = delete;

  const WeightSet& weights() const { return *weights_; }
  WeightSet& weights() { return *weights_; }
  Residency& residency() const { return *residency_; }
  c10::ScalarType dtype() const { return weights_->dtype(); }
  c10::Device device() const { return weights_->device(); }
  // Is told of what is read.
  void set_audit(WeightAudit* audit) const { weights_->set_audit(audit); }
  // Names the weights and the form they are held in; a key for what is computed with them.
  std::string identity() const;

 protected:
  Component(const ComponentFiles& files, c10::ScalarType dtype, c10::Device device)
      : weights_(std::make_unique<WeightSet>(files.checkpoint, dtype, device)),
        residency_(std::make_unique<Residency>(*weights_)) {
    weights_->ReadQuantization(files.config, files.config_path);
  }

 private:
  std::unique_ptr<WeightSet> weights_;
  std::unique_ptr<Residency> residency_;
};

// A T of these files, with every weight it looks up found; not configured yet. T::Config::FromJson
// reads the config, T's constructor makes the layers.
template <typename T>
absl::StatusOr<std::shared_ptr<T>> MakeComponent(const ComponentFiles& files, c10::ScalarType dtype,
                                                 c10::Device device) {
  KINO_ASSIGN_OR_RETURN(const typename T::Config config,
                        T::Config::FromJson(files.config, files.config_path));
  auto component = std::make_shared<T>(config, files, dtype, device);
  KINO_RETURN_IF_ERROR(component->weights().Finish());
  return component;
}

}  // namespace kino::engine
