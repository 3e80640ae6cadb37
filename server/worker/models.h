// The models this worker may run, and which of them it holds.
// Load, Unload and the destructor belong to the engine thread; List, TakeLoads and WeightsSha256
// may be called from any.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/files/file_layer.h"
#include "server/config/config.h"
#include "server/worker/weight_hashes.h"

namespace kino::worker {

struct ModelsOptions {
  // At most so many models are held; the one unused for longest goes first.
  int max_loaded = 1;
  // Of the worker, in bytes; 0: none.
  int64_t max_device_memory = 0;
  int64_t max_host_memory = 0;
  // WeightHashes'.
  std::string weights_cache = "";
  scheduler::FileLayer* files = &scheduler::RealFiles();
};

class Models {
 public:
  // `engine` outlives this.
  Models(engine::Engine& engine, const std::vector<config::ModelConfig>& models,
         ModelsOptions options);

  struct Loaded {
    std::shared_ptr<engine::Model> model;
    bool loaded_now = false;  // it was not held before
  };
  // NOT_FOUND: no such model is configured. FAILED_PRECONDITION: its files are broken, or the
  // options do not fit it. Else what engine::Engine::Load says, which `cancel` and `counter` go to.
  absl::StatusOr<Loaded> Load(const std::string& name, const engine::CancelToken* cancel,
                              engine::WorkCounter* counter = nullptr);
  // NOT_FOUND: no such model is configured. Unloading what is not loaded is no error.
  absl::Status Unload(const std::string& name);
  void UnloadAll();

  // What runs of the model need. NOT_FOUND: no such model is configured. FAILED_PRECONDITION: its
  // files are broken. Thread-safe.
  absl::StatusOr<std::shared_ptr<engine::ProfileSource>> Profiles(const std::string& name);

  // `plan` within the worker's limits. Thread-safe.
  engine::Plan Limited(const engine::Plan& plan) const;

  std::vector<v1::WorkerModel> List() const;
  // The loads that have succeeded since the last call; the latest few where nobody called for long.
  std::vector<v1::ModelLoad> TakeLoads();
  // WeightHashes::Known.
  std::string WeightsSha256(const std::string& name) const { return weights_.Known(name); }

 private:
  struct Entry {
    std::string name;
    engine::ModelOptions options;
    std::shared_ptr<engine::Model> model;  // engine thread only
    int64_t last_use = 0;                  // engine thread only
  };
  Entry* Find(const std::string& name);
  void Publish(const Entry& entry, std::string fingerprint);
  void Evict(Entry& entry);
  void WantWeightsSha256(const Entry& entry);

  engine::Engine& engine_;
  const ModelsOptions options_;
  std::vector<Entry> entries_;
  int64_t uses_ = 0;
  mutable absl::Mutex mutex_;
  std::vector<v1::WorkerModel> list_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::ModelLoad> loads_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<engine::ProfileSource>> profiles_
      ABSL_GUARDED_BY(mutex_);  // by model
  WeightHashes weights_;
};

// SHA-256 over the model's JSON files and the headers of its safetensors files, by path, and over
// the heads of the original files beside it. Empty when the folder cannot be read: what is wrong
// with it is told when it is loaded.
std::string ModelFingerprint(const std::string& folder,
                             const engine::OriginalFiles& original_files);

}  // namespace kino::worker
