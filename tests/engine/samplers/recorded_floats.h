// Numbers as the fixtures of this folder record them: each float as its bits.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace kino::engine {

inline std::vector<float> Floats(const nlohmann::json& bits) {
  std::vector<float> out;
  for (const nlohmann::json& b : bits) out.push_back(std::bit_cast<float>(b.get<uint32_t>()));
  return out;
}

// Whole numbers apart in the order of floats: 0 is the same bits (or +0 and -0), 1 the next float.
inline int64_t UlpDistance(float a, float b) {
  const auto order = [](float f) {
    const int64_t bits = std::bit_cast<int32_t>(f);
    return bits < 0 ? std::numeric_limits<int32_t>::min() - bits : bits;
  };
  return std::abs(order(a) - order(b));
}

inline void ExpectWithinUlps(const std::vector<float>& got, const std::vector<float>& want,
                             int64_t ulps) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(UlpDistance(got[i], want[i]), ulps)
        << "at " << i << ": " << got[i] << ", expected " << want[i];
  }
}

inline at::Tensor TensorOf(const nlohmann::json& bits, const std::string& dtype,
                           at::IntArrayRef shape) {
  if (dtype == "float32") {
    std::vector<float> values = Floats(bits);
    return at::from_blob(values.data(), shape, at::kFloat).clone();
  }
  std::vector<uint16_t> values;
  for (const nlohmann::json& b : bits) values.push_back(b.get<uint16_t>());
  return at::from_blob(values.data(), shape, dtype == "bfloat16" ? at::kBFloat16 : at::kHalf)
      .clone();
}

}  // namespace kino::engine
