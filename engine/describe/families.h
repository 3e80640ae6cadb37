// The families describe knows: one line each in engine/models/describers.cc, which is above
// describe and needs no torch.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/component_files.h"
#include "engine/describe/describe.h"

namespace kino::engine {

// What is to be described.
struct ModelSource {
  std::string folder;
  std::string pipeline_class;
  OriginalFiles original_files;
  // The transformer's config: the folder's, or that of the original file in its place. Null and
  // empty where the pipeline has none.
  nlohmann::json transformer_config;
  std::string transformer_config_path;
};

struct FamilyDescriber {
  std::string family;
  // The pipeline classes of model_index.json that this family runs.
  std::vector<std::string> pipeline_classes;
  // Reads the component configs the family needs.
  absl::StatusOr<std::shared_ptr<const FamilyDescription>> (*describe)(const ModelSource& source);
  // Which of the family's published models it is, by its configs ("CogVideoX-5b-I2V"); empty: none
  // that is known. `source` has been described.
  std::string (*generation)(const ModelSource& source);
  // Its components that are read from original files as well, by their names in a folder.
  std::map<std::string, FindComponent> find_original;
  // Its own, of all tasks.
  std::vector<KnobInfo> knobs;
  // Subfolders with weights that a model folder may have though its model_index.json names none of
  // them.
  std::vector<std::string> optional_components = {};
};

// Limits of most families' models: sizes are multiples of `size_multiple`, and `temporal_ratio`
// frames are a latent one, but for the first.
Limits UsualLimits(int size_multiple, int temporal_ratio);

// A family whose tasks, limits and tiles are those of its configs, whatever is asked for.
class FixedDescription : public FamilyDescription {
 public:
  const std::vector<TaskDescription>& tasks() const override { return tasks_; }
  const Limits& limits() const override { return limits_; }
  const VaeTileSizes& vae_tiles() const override { return tiles_; }

 protected:
  explicit FixedDescription(const VaeTileSizes& tiles) : tiles_(tiles) {}

  std::vector<TaskDescription> tasks_;
  Limits limits_;
  const VaeTileSizes tiles_;
};

// What most families say: one task, and nothing that depends on several fields but the schedule.
class SingleTaskDescription final : public FixedDescription {
 public:
  // INVALID_ARGUMENT: the effective request's schedule comes out of no use.
  using CheckSchedule = std::function<absl::Status(const Request& request)>;

  SingleTaskDescription(const Request& defaults, const Limits& limits, const VaeTileSizes& tiles,
                        CheckSchedule check_schedule)
      : FixedDescription(tiles), check_schedule_(std::move(check_schedule)) {
    tasks_ = {{.task = defaults.task, .defaults = defaults}};
    limits_ = limits;
  }

  void Resolve(Request& request, std::vector<FieldViolation>& violations) const override;

 private:
  const CheckSchedule check_schedule_;
};

// Defined in engine/models/describers.cc.
const std::vector<FamilyDescriber>& FamilyDescribers();

}  // namespace kino::engine
