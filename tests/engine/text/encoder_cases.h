// The encoders that encoder_fixtures.py writes, and what transformers gave for them.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status_bridge.h"
#include "engine/core/tensor_file.h"
#include "engine/core/torch_types.h"
#include "engine/core/trace.h"
#include "engine/memory/component.h"
#include "engine/ops/linear.h"
#include "engine/trace/meta_kernels.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {

// Written once per process.
inline const std::string& EncoderFixtures() {
  static FixtureFolder folder;
  static const bool made = [] {
    folder.RunOracle("text/encoder_fixtures.py", std::to_string(TestSeed()));
    return true;
  }();
  EXPECT_TRUE(made);
  return folder.path();
}

inline std::string EncoderFolder(const std::string& name) {
  return absl::StrCat(EncoderFixtures(), "/", name);
}

// Inputs and results of one encoder, by name.
class EncoderCases {
 public:
  explicit EncoderCases(const std::string& name) {
    auto file = TensorFile::Open(EncoderFolder(name) + "/cases.safetensors");
    EXPECT_TRUE(file.ok()) << file.status();
    if (file.ok()) file_ = *std::move(file);
  }
  bool Has(const std::string& name) const {
    return file_ != nullptr && file_->tensors().contains(name);
  }
  at::Tensor operator[](const std::string& name) const {
    TORCH_CHECK(Has(name), "the fixtures have no ", name);
    const TensorEntry& entry = file_->tensors().find(name)->second;
    return at::from_blob(const_cast<std::byte*>(entry.data), entry.shape, ToTorch(entry.dtype))
        .clone();
  }
  // NAME_0, NAME_1, ... with `suffix` behind.
  std::vector<at::Tensor> All(const std::string& name, const std::string& suffix = "") const {
    std::vector<at::Tensor> all;
    for (int i = 0; Has(absl::StrCat(name, "_", i, suffix)); ++i)
      all.push_back((*this)[absl::StrCat(name, "_", i, suffix)]);
    EXPECT_FALSE(all.empty()) << name;
    return all;
  }

 private:
  std::shared_ptr<const TensorFile> file_;
};

template <typename T>
absl::StatusOr<std::shared_ptr<T>> TryEncoder(const absl::StatusOr<ComponentFiles>& files,
                                              c10::ScalarType dtype = at::kFloat,
                                              c10::Device device = c10::Device(c10::kCPU)) {
  if (!files.ok()) return files.status();
  return MakeComponent<T>(*files, dtype, device);
}

// Ready to run, or, on the meta device, to be traced.
template <typename T>
std::shared_ptr<T> Encoder(const absl::StatusOr<ComponentFiles>& files,
                           c10::ScalarType dtype = at::kFloat, const WeightPlan& plan = {},
                           c10::Device device = c10::Device(c10::kCPU)) {
  const auto encoder = TryEncoder<T>(files, dtype, device);
  ThrowIfError(encoder.status());
  if (device.is_meta()) {
    InstallMetaKernels();
    (*encoder)->weights().HoldEmpty();
  } else {
    (*encoder)->residency().Configure(plan);
  }
  return *encoder;
}

template <typename T>
std::shared_ptr<T> EncoderIn(const std::string& name, c10::ScalarType dtype = at::kFloat,
                             const WeightPlan& plan = {}) {
  return Encoder<T>(ComponentFiles::Open(EncoderFolder(name), ""), dtype, plan);
}

// The files of a folder under another config.
inline ComponentFiles WithConfig(const std::string& name, const nlohmann::json& config) {
  ComponentFiles files = *ComponentFiles::Open(EncoderFolder(name), "");
  files.config = config;
  return files;
}

inline nlohmann::json ConfigIn(const std::string& name) {
  return *ReadJsonFile(EncoderFolder(name) + "/config.json");
}

inline double LargestDifference(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes() || got.scalar_type() != expected.scalar_type()) {
    ADD_FAILURE() << got.toString() << got.sizes() << ", expected " << expected.toString()
                  << expected.sizes();
    return 1e9;
  }
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

// Sums in another order: float32 has 24 bits, and a few hundred terms lose some of them.
inline void ExpectFloats(const std::vector<at::Tensor>& got,
                         const std::vector<at::Tensor>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const double scale = std::max(1.0, expected[i].abs().max().item<double>());
    EXPECT_LT(LargestDifference(got[i], expected[i]), 1e-5 * scale) << i;
  }
}

inline double MeanDifference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double sum = 0, count = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    sum += (a[i].to(at::kDouble) - b[i].to(at::kDouble)).abs().sum().item<double>();
    count += static_cast<double>(a[i].numel());
  }
  return sum / std::max(count, 1.0);
}

// bfloat16 is rounded where the reference rounds. `in_float`: the reference's own float32, whose
// distance is what bfloat16 costs. The fixtures' products are float32's, rounded once: where Kino's
// are too, the bits are equal, and a rounding more or less would cost a good part of that again. A
// CPU with instructions for bfloat16 rounds inside of attention as well.
inline void ExpectRoundedAlike(const std::vector<at::Tensor>& got,
                               const std::vector<at::Tensor>& expected,
                               const std::vector<at::Tensor>& in_float) {
  ASSERT_EQ(got.size(), expected.size());
  ASSERT_EQ(got.size(), in_float.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].scalar_type(), at::kBFloat16);
    EXPECT_EQ(got[i].sizes(), expected[i].sizes());
  }
  const double cost = MeanDifference(expected, in_float), off = MeanDifference(got, expected);
  EXPECT_LT(off, (ComputesInFloat(got[0]) ? 0.02 : 0.75) * cost);
}

// The names of the weights that were read.
class ReadWeights final : public WeightAudit {
 public:
  void Touch(const Weight& weight) override { names_.insert(weight.name); }
  const std::set<std::string>& names() const { return names_; }

 private:
  std::set<std::string> names_;
};

inline std::set<std::string> WeightsOf(const Component& component) {
  std::set<std::string> names;
  for (const auto& weight : component.weights().weights()) names.insert(weight->name);
  return names;
}

inline constexpr const char* kEveryOffload[] = {"none",    "model",   "sequential", "leaf",
                                                "block:1", "block:2", "block:9"};

}  // namespace kino::engine
