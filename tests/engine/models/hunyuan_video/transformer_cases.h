// Small HunyuanVideo transformers and what diffusers computes with them (transformer_fixtures.py).
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/torch_types.h"
#include "engine/models/hunyuan_video/transformer.h"
#include "engine/models/hunyuan_video/weight_map.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {

// Written once per process.
inline const std::string& HunyuanFixtures() {
  static const FixtureFolder* const folder = [] {
    static FixtureFolder made;
    made.RunOracle("models/hunyuan_video/transformer_fixtures.py", std::to_string(TestSeed()));
    return &made;
  }();
  return folder->path();
}

constexpr float kGuidance = 6000;

inline std::shared_ptr<HunyuanVideoTransformer> MakeHunyuan(
    const absl::StatusOr<ComponentFiles>& files, c10::ScalarType dtype, const WeightPlan& plan) {
  EXPECT_TRUE(files.ok()) << files.status();
  auto made = MakeComponent<HunyuanVideoTransformer>(*files, dtype, at::kCPU);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->residency().Configure(plan);
  return *std::move(made);
}

inline std::shared_ptr<HunyuanVideoTransformer> LoadHunyuan(const std::string& name,
                                                            c10::ScalarType dtype = at::kFloat,
                                                            const WeightPlan& plan = {}) {
  return MakeHunyuan(ComponentFiles::Open(HunyuanFixtures() + "/" + name, ""), dtype, plan);
}

// Of an original file in the place of `folder`'s component.
inline std::shared_ptr<HunyuanVideoTransformer> LoadOriginalHunyuan(const std::string& file,
                                                                    const std::string& folder,
                                                                    const WeightPlan& plan = {}) {
  return MakeHunyuan(
      ComponentFiles::OpenOriginal(HunyuanFixtures() + "/" + file, HunyuanFixtures() + "/" + folder,
                                   FindHunyuanVideoTransformer),
      at::kFloat, plan);
}

class HunyuanCase {
 public:
  // file: "t2v/cases.safetensors"; name: "one".
  HunyuanCase(const std::string& file, std::string name) : name_(std::move(name)) {
    auto opened = TensorFile::Open(HunyuanFixtures() + "/" + file);
    EXPECT_TRUE(opened.ok()) << opened.status();
    file_ = *std::move(opened);
  }

  at::Tensor Get(const std::string& part) const {
    const TensorEntry* entry = Find(part);
    TORCH_CHECK(entry != nullptr, "the fixtures have no ", name_, "/", part);
    return at::from_blob(const_cast<std::byte*>(entry->data), entry->shape, ToTorch(entry->dtype))
        .clone();
  }
  std::vector<int64_t> Indices(const std::string& part) const {
    const at::Tensor indices = Get(part);
    const int64_t* data = indices.const_data_ptr<int64_t>();
    return {data, data + indices.numel()};
  }
  std::vector<float> timesteps() const {
    const at::Tensor times = Get("timesteps");
    return {times.const_data_ptr<float>(), times.const_data_ptr<float>() + times.numel()};
  }
  std::vector<HunyuanVideoText> texts() const {
    std::vector<HunyuanVideoText> rows;
    for (int row = 0; Find(absl::StrCat("text.", row)) != nullptr; ++row) {
      const std::string image = absl::StrCat("image.", row);
      rows.push_back({.tokens = Get(absl::StrCat("text.", row)),
                      .pooled = Get(absl::StrCat("pooled.", row)),
                      .image = Find(image) != nullptr ? Get(image) : at::Tensor()});
    }
    return rows;
  }
  HunyuanVideoGrid grid() const {
    const at::Tensor latents = Get("latents");
    return {.frames = latents.size(2), .height = latents.size(3), .width = latents.size(4)};
  }
  HunyuanVideoHistory history() const {
    const auto frames = [this](const char* name) {
      if (Find(name) == nullptr) return HunyuanVideoHistory::Frames();
      return HunyuanVideoHistory::Frames{.latents = Get(name),
                                         .indices = Indices(absl::StrCat(name, ".indices"))};
    };
    return {.indices = Indices("indices"),
            .clean = frames("latents_clean"),
            .clean_2x = frames("latents_history_2x"),
            .clean_4x = frames("latents_history_4x")};
  }

  HunyuanVideoTransformer::Prepared Prepare(const HunyuanVideoTransformer& transformer,
                                            const RunContext& context = {}) const {
    auto prepared = transformer.Prepare(texts(), grid(), timesteps(), kGuidance, context);
    if (transformer.config().is_framepack) transformer.SetHistory(prepared, history());
    return prepared;
  }
  // Every step: [T, B, C, F, h, w].
  at::Tensor Steps(const HunyuanVideoTransformer& transformer,
                   const HunyuanVideoTransformer::Prepared& prepared,
                   const RunContext& context = {}) const {
    std::vector<at::Tensor> steps;
    for (int step = 0; step < static_cast<int>(timesteps().size()); ++step)
      steps.push_back(transformer.Forward(prepared, step, Get("latents"), context));
    return at::stack(steps);
  }
  at::Tensor Run(const HunyuanVideoTransformer& transformer, const RunContext& context = {}) const {
    const c10::InferenceMode inference;
    return Steps(transformer, Prepare(transformer, context), context);
  }

 private:
  const TensorEntry* Find(const std::string& part) const {
    const auto found = file_->tensors().find(name_ + "/" + part);
    return found == file_->tensors().end() ? nullptr : &found->second;
  }

  std::string name_;
  std::shared_ptr<const TensorFile> file_;
};

inline double MaxError(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes()) {
    ADD_FAILURE() << "shape " << got.sizes() << ", expected " << expected.sizes();
    return 1e9;
  }
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace kino::engine
