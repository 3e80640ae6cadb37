#include "server/worker/models.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/config/effective_plan.h"
#include "server/digest/sha256.h"

namespace kino::worker {
namespace {

namespace fs = std::filesystem;

// Larger files are no configs; a header this large is refused by the engine as well.
constexpr size_t kMaxLoadsTold = 16;
constexpr uint64_t kMaxHashedBytes = uint64_t{100} << 20;
// Holds the names and types of a transformer's tensors.
constexpr uint64_t kGgufHeadBytes = uint64_t{1} << 20;

// The bytes of `path` that tell which tensors and settings it holds.
std::string IdentifyingBytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  uint64_t size = 0;
  if (path.extension() == ".gguf") {
    size = kGgufHeadBytes;
  } else if (path.extension() == ".safetensors") {
    std::array<unsigned char, 8> length{};
    if (!file.read(reinterpret_cast<char*>(length.data()), length.size())) return "";
    for (int i = 7; i >= 0; --i) size = size << 8 | length[static_cast<size_t>(i)];
  } else {
    std::error_code error;
    size = fs::file_size(path, error);
    if (error) return "";
  }
  if (size > kMaxHashedBytes) return "";
  std::string bytes(size, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(size));
  bytes.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return bytes;
}

// The engine names what is wrong with the files as an argument of its own; to a client they are a
// state of the server.
absl::Status LoadError(const std::string& model, const engine::ModelOptions& options,
                       const absl::Status& error) {
  switch (error.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kFailedPrecondition:
      return absl::FailedPreconditionError(
          absl::StrCat("model '", model, "' cannot run: ",
                       config::WithoutPaths(options.folder, options.original_files,
                                            std::string(error.message()))));
    default:
      return error;
  }
}

}  // namespace

std::string ModelFingerprint(const std::string& folder,
                             const engine::OriginalFiles& original_files) {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string extension = it->path().extension();
    if (extension != ".json" && extension != ".safetensors") continue;
    std::error_code ignored;
    if (it->is_regular_file(ignored)) paths.push_back(it->path().string());
  }
  if (error || paths.empty()) return "";
  std::sort(paths.begin(), paths.end());
  for (const auto& [component, path] : original_files) paths.push_back(path);
  digest::Sha256 digest;
  for (const std::string& path : paths) {
    const std::string bytes = IdentifyingBytes(path);
    const std::string head =
        absl::StrCat(fs::path(path).lexically_relative(folder).string(), "\n", bytes.size(), "\n");
    digest.Update(head.data(), head.size());
    digest.Update(bytes.data(), bytes.size());
  }
  return digest.Hex();
}

Models::Models(engine::Engine& engine, const std::vector<config::ModelConfig>& models,
               ModelsOptions options)
    : engine_(engine),
      options_(std::move(options)),
      weights_(*options_.files, options_.weights_cache) {
  for (const config::ModelConfig& model : models) {
    Entry entry;
    entry.name = model.name;
    entry.options.folder = model.folder;
    entry.options.dtype = model.dtype;
    entry.options.variant = model.variant;
    entry.options.original_files = model.original_files;
    entry.options.plan = Limited(model.plan);
    entry.options.allow_lossy = model.allow_lossy;
    Publish(entry, ModelFingerprint(model.folder, model.original_files));
    entries_.push_back(std::move(entry));
  }
}

Models::Entry* Models::Find(const std::string& name) {
  auto found = std::find_if(entries_.begin(), entries_.end(),
                            [&](const Entry& entry) { return entry.name == name; });
  return found == entries_.end() ? nullptr : &*found;
}

// An empty fingerprint leaves the known one.
void Models::Publish(const Entry& entry, std::string fingerprint) {
  absl::MutexLock lock(&mutex_);
  auto found = std::find_if(list_.begin(), list_.end(), [&](const v1::WorkerModel& model) {
    return model.name() == entry.name;
  });
  if (found == list_.end()) {
    list_.emplace_back().set_name(entry.name);
    found = list_.end() - 1;
  }
  found->set_loaded(entry.model != nullptr);
  if (!fingerprint.empty()) found->set_fingerprint(std::move(fingerprint));
}

void Models::Evict(Entry& entry) {
  if (entry.model == nullptr) return;
  entry.model.reset();
  weights_.Forget(entry.name);
  Publish(entry, "");
  spdlog::info("model {} unloaded", entry.name);
}

void Models::WantWeightsSha256(const Entry& entry) {
  absl::StatusOr<std::vector<std::string>> paths = engine::WeightFiles(entry.model->description());
  if (!paths.ok()) {
    spdlog::warn("model {}: receipts have no hash of its weights: {}", entry.name,
                 std::string(paths.status().message()));
    return;
  }
  weights_.Want(entry.name, entry.options.folder, *std::move(paths));
}

absl::StatusOr<Models::Loaded> Models::Load(const std::string& name,
                                            const engine::CancelToken* cancel,
                                            engine::WorkCounter* counter) {
  Entry* entry = Find(name);
  if (entry == nullptr) {
    return absl::NotFoundError(absl::StrCat("model '", name, "' is not configured on this worker"));
  }
  entry->last_use = ++uses_;
  if (entry->model != nullptr) return Loaded{entry->model, false};
  // Before the load, not after: both at once may not fit.
  while (true) {
    Entry* oldest = nullptr;
    int held = 0;
    for (Entry& other : entries_) {
      if (other.model == nullptr) continue;
      ++held;
      if (oldest == nullptr || other.last_use < oldest->last_use) oldest = &other;
    }
    if (held < std::max(options_.max_loaded, 1)) break;
    Evict(*oldest);
  }
  auto model = engine_.Load(entry->options, cancel, counter);
  if (absl::IsCancelled(model.status())) {
    spdlog::info("the loading of model {} was cancelled", name);
    return model.status();
  }
  if (!model.ok()) {
    spdlog::error("model {} cannot be loaded: {}", name, std::string(model.status().message()));
    return LoadError(name, entry->options, model.status());
  }
  entry->model = *std::move(model);
  Publish(*entry, ModelFingerprint(entry->options.folder, entry->options.original_files));
  WantWeightsSha256(*entry);
  const double seconds = entry->model->load_stats().seconds;
  spdlog::info("model {} loaded in {:.2f} s", name, seconds);
  {
    v1::ModelLoad load;
    load.set_model(name);
    load.set_seconds(seconds);
    absl::MutexLock lock(&mutex_);
    loads_.push_back(std::move(load));
    if (loads_.size() > kMaxLoadsTold) loads_.pop_front();
  }
  return Loaded{entry->model, true};
}

std::vector<v1::ModelLoad> Models::TakeLoads() {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::ModelLoad> loads(std::make_move_iterator(loads_.begin()),
                                   std::make_move_iterator(loads_.end()));
  loads_.clear();
  return loads;
}

absl::Status Models::Unload(const std::string& name) {
  Entry* entry = Find(name);
  if (entry == nullptr) {
    return absl::NotFoundError(absl::StrCat("model '", name, "' is not configured on this worker"));
  }
  Evict(*entry);
  return absl::OkStatus();
}

void Models::UnloadAll() {
  for (Entry& entry : entries_) Evict(entry);
}

absl::StatusOr<std::shared_ptr<engine::ProfileSource>> Models::Profiles(const std::string& name) {
  // Names and options do not change after construction.
  const Entry* entry = Find(name);
  if (entry == nullptr) return absl::NotFoundError(absl::StrCat("no model '", name, "'"));
  {
    absl::MutexLock lock(&mutex_);
    if (const auto known = profiles_.find(name); known != profiles_.end()) return known->second;
  }
  absl::StatusOr<std::shared_ptr<engine::ProfileSource>> profiles =
      engine_.Profiles(entry->options);
  if (!profiles.ok()) return LoadError(name, entry->options, profiles.status());
  absl::MutexLock lock(&mutex_);
  return profiles_[name] = *std::move(profiles);
}

engine::Plan Models::Limited(const engine::Plan& plan) const {
  return config::WithLimits(plan, options_.max_device_memory, options_.max_host_memory);
}

std::vector<v1::WorkerModel> Models::List() const {
  std::vector<v1::WorkerModel> list;
  {
    absl::MutexLock lock(&mutex_);
    list = list_;
  }
  for (v1::WorkerModel& model : list) model.set_weights_sha256(weights_.Known(model.name()));
  return list;
}

}  // namespace kino::worker
