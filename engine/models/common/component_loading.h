// Components out of a model folder, held once however many models name them. One thread at a time.
#pragma once

#include <c10/core/ScalarType.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/core/torch_types.h"
#include "engine/memory/component.h"
#include "engine/models/common/family_run.h"
#include "engine/models/common/pipeline.h"

namespace kino::engine {

// The component made of `files`, from the pool if a model holds it. CANCELLED by the options'
// context. How its weights are held is
// none of the key: models that share a component configure it in turn.
template <typename T>
absl::StatusOr<std::shared_ptr<T>> PooledComponent(const ComponentFiles& files,
                                                   const PipelineOptions& options,
                                                   EngineShared& shared, std::string_view name) {
  KINO_RETURN_IF_ERROR(options.context.Advance());
  const c10::ScalarType dtype = ToTorch(options.dtype.Of(name));
  const std::string key =
      absl::StrCat(std::string(name), "|", files.checkpoint->identity(), "|", files.config.dump(),
                   "|", c10::toString(dtype), "|", options.device.str());
  return shared.components.Get<T>(key, [&]() -> absl::StatusOr<std::shared_ptr<T>> {
    KINO_ASSIGN_OR_RETURN(std::shared_ptr<T> component,
                          MakeComponent<T>(files, dtype, options.device));
    component->residency().set_staging(shared.staging);
    return component;
  });
}

// The one in the folder's subfolder `name`, or that of the original file in its place.
template <typename T>
absl::StatusOr<std::shared_ptr<T>> FolderComponent(const PipelineOptions& options,
                                                   EngineShared& shared, std::string_view name,
                                                   FindComponent find = nullptr) {
  KINO_ASSIGN_OR_RETURN(
      const ComponentFiles files,
      ComponentFiles::OpenComponent(options.folder, std::string(name), options.variant,
                                    options.original_files, find));
  return PooledComponent<T>(files, options, shared, name);
}

// INVALID_ARGUMENT, naming the folder, when two components of it do not fit: `what` of one is not
// `other_what` of the other.
absl::Status CheckFit(const PipelineOptions& options, std::string_view what, int64_t value,
                      std::string_view other_what, int64_t other_value);

// A pipeline of `components`, whose runs are what start(FamilyRun<Components>::Inputs) gives.
// moved: those of them that have weights.
template <typename Components, typename StartRun>
std::unique_ptr<Pipeline> MakePipeline(std::shared_ptr<const Components> components,
                                       std::vector<PipelineComponent> moved, EngineShared& shared,
                                       StartRun start) {
  class FamilyPipeline final : public Pipeline {
   public:
    FamilyPipeline(std::shared_ptr<const Components> components,
                   std::vector<PipelineComponent> moved, EngineShared& shared, StartRun start)
        : components_(std::move(components)),
          moved_(std::move(moved)),
          shared_(shared),
          start_(std::move(start)) {}
    const std::vector<PipelineComponent>& components() const override { return moved_; }
    std::unique_ptr<PipelineRun> Start(const Request& request, std::vector<MediaInput> media,
                                       Tap tap) override {
      return start_(typename FamilyRun<Components>::Inputs{
          components_, &shared_.embeddings, request, std::move(media), std::move(tap)});
    }

   private:
    const std::shared_ptr<const Components> components_;
    const std::vector<PipelineComponent> moved_;
    EngineShared& shared_;
    const StartRun start_;
  };
  return std::make_unique<FamilyPipeline>(std::move(components), std::move(moved), shared,
                                          std::move(start));
}

// The same, where all runs are of one class.
template <typename Run, typename Components>
std::unique_ptr<Pipeline> MakePipeline(std::shared_ptr<const Components> components,
                                       std::vector<PipelineComponent> moved, EngineShared& shared) {
  return MakePipeline(std::move(components), std::move(moved), shared,
                      [](auto inputs) { return std::make_unique<Run>(std::move(inputs)); });
}

// What `load` makes of the subfolder `name`. On the meta device a folder may be without: nullptr
// then, since of prompts only the length matters to what a run needs.
template <typename Tokenizer>
absl::StatusOr<std::shared_ptr<const Tokenizer>> FolderTokenizer(
    const PipelineOptions& options, std::string_view name,
    absl::StatusOr<std::unique_ptr<Tokenizer>> (*load)(const std::string& folder)) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      load(absl::StrCat(options.folder, "/", std::string(name)));
  if (tokenizer.ok()) return *std::move(tokenizer);
  if (options.device.is_meta() && absl::IsNotFound(tokenizer.status())) return nullptr;
  return tokenizer.status();
}

}  // namespace kino::engine
