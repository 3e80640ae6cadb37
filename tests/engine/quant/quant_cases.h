// What quant_fixtures.py wrote, by name, for the tests of this folder.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/safetensors.h"
#include "engine/core/torch_types.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {

// Written once per process.
inline const std::string& QuantFixtures() {
  static const FixtureFolder* const folder = [] {
    static FixtureFolder made;
    made.RunOracle("quant/quant_fixtures.py", "");
    return &made;
  }();
  return folder->path();
}

class QuantCases {
 public:
  explicit QuantCases(const std::string& file) {
    auto opened = SafetensorsFile::Open(absl::StrCat(QuantFixtures(), "/", file));
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) file_ = *std::move(opened);
  }

  at::Tensor Get(const std::string& name) const {
    const auto found = file_->tensors().find(name);
    TORCH_CHECK(found != file_->tensors().end(), "the fixtures have no ", name);
    const TensorEntry& entry = found->second;
    return at::from_blob(const_cast<std::byte*>(entry.data), entry.shape, ToTorch(entry.dtype))
        .clone();
  }
  bool Has(const std::string& name) const { return file_->tensors().contains(name); }
  // "part0", "part1", ... of a case.
  std::vector<at::Tensor> Parts(const std::string& name) const {
    std::vector<at::Tensor> parts;
    for (int i = 0; Has(absl::StrCat(name, "part", i)); ++i)
      parts.push_back(Get(absl::StrCat(name, "part", i)));
    return parts;
  }
  // "nf4/float32/0/", ... of a scheme ("nf4/").
  std::vector<std::string> CasesOf(const std::string& scheme) const {
    std::set<std::string> names;
    for (const auto& [name, entry] : file_->tensors()) {
      if (name.starts_with(scheme)) names.insert(name.substr(0, name.rfind('/') + 1));
    }
    return {names.begin(), names.end()};
  }

 private:
  std::unique_ptr<SafetensorsFile> file_;
};

// The largest difference over the largest expected magnitude.
inline double RelativeError(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes() || got.scalar_type() != expected.scalar_type()) {
    ADD_FAILURE() << got.sizes() << " " << got.scalar_type() << ", expected " << expected.sizes()
                  << " " << expected.scalar_type();
    return 1e9;
  }
  const double difference =
      (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
  return difference / std::max(expected.to(at::kDouble).abs().max().item<double>(), 1e-30);
}

// Sums in another order: some units in the last place of the largest value.
inline double SumTolerance(c10::ScalarType dtype) {
  return dtype == at::kFloat ? 2e-6 : dtype == at::kHalf ? 1.0 / 1024 : 1.0 / 128;
}

}  // namespace kino::engine
