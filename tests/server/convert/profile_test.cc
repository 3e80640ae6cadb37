#include "server/convert/profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kino::convert {
namespace {

engine::RunProfile Profile() {
  auto places = std::make_shared<std::vector<engine::ComponentPlaces>>();
  places->push_back({.component = "transformer",
                     .weights = {{.name = "blocks.3.ff.weight",
                                  .part = "blocks",
                                  .group = "block.3",
                                  .stack = 0,
                                  .block = 3,
                                  .dtype = engine::DType::kBF16,
                                  .may_quantize = true,
                                  .may_cast = false},
                                 {.name = "proj_in.bias",
                                  .part = "",
                                  .group = "rest",
                                  .dtype = engine::DType::kF16,
                                  .may_cast = true}}});
  places->push_back(
      {.component = "vae", .weights = {{.name = "conv.weight", .part = "", .group = ""}}});
  const engine::PhaseNeed denoise{.stage = engine::Stage::kDenoise,
                                  .component = "transformer",
                                  .part = "blocks",
                                  .device_activations = int64_t{5} << 40,
                                  .host_activations = 7,
                                  .rows = 13376,
                                  .linear_flops = 1.5e15,
                                  .attention_flops = 2e14,
                                  .convolution_flops = 3.25,
                                  .kernels = {.launches = 1234.5,
                                              .bytes_read = 6e12,
                                              .bytes_written = 7e11,
                                              .roofline_seconds = 0.125},
                                  .passes = 80};
  const engine::PhaseNeed decode{
      .stage = engine::Stage::kDecode, .component = "vae", .part = "decoder"};
  engine::RunProfile profile{.places = std::move(places), .variants = {}};
  profile.variants.emplace_back(engine::PhaseVariant{}, std::vector{denoise, decode});
  profile.variants.emplace_back(
      engine::PhaseVariant{.vae_tiling = engine::VaeTiling{}, .chunk_feed_forward = 512},
      std::vector{decode});
  return profile;
}

void ExpectSame(const engine::PhaseNeed& a, const engine::PhaseNeed& b) {
  EXPECT_EQ(a.stage, b.stage);
  EXPECT_EQ(a.component, b.component);
  EXPECT_EQ(a.part, b.part);
  EXPECT_EQ(a.device_activations, b.device_activations);
  EXPECT_EQ(a.host_activations, b.host_activations);
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.linear_flops, b.linear_flops);
  EXPECT_EQ(a.attention_flops, b.attention_flops);
  EXPECT_EQ(a.convolution_flops, b.convolution_flops);
  EXPECT_EQ(a.kernels.launches, b.kernels.launches);
  EXPECT_EQ(a.kernels.bytes_read, b.kernels.bytes_read);
  EXPECT_EQ(a.kernels.bytes_written, b.kernels.bytes_written);
  EXPECT_EQ(a.kernels.roofline_seconds, b.kernels.roofline_seconds);
  EXPECT_EQ(a.passes, b.passes);
}

TEST(ConvertProfileTest, EveryFieldSurvivesTheRoundTrip) {
  const engine::RunProfile want = Profile();
  const auto got = ToEngine(FromEngine(want, /*places=*/true));
  ASSERT_TRUE(got.ok()) << got.status();
  ASSERT_EQ(got->variants.size(), want.variants.size());
  for (size_t i = 0; i < want.variants.size(); ++i) {
    EXPECT_EQ(got->variants[i].first, want.variants[i].first);
    ASSERT_EQ(got->variants[i].second.size(), want.variants[i].second.size());
    for (size_t k = 0; k < want.variants[i].second.size(); ++k)
      ExpectSame(got->variants[i].second[k], want.variants[i].second[k]);
  }
  ASSERT_NE(got->places, nullptr);
  ASSERT_EQ(got->places->size(), want.places->size());
  for (size_t i = 0; i < want.places->size(); ++i) {
    EXPECT_EQ((*got->places)[i].component, (*want.places)[i].component);
    ASSERT_EQ((*got->places)[i].weights.size(), (*want.places)[i].weights.size());
    for (size_t k = 0; k < (*want.places)[i].weights.size(); ++k) {
      const engine::WeightPlace& a = (*got->places)[i].weights[k];
      const engine::WeightPlace& b = (*want.places)[i].weights[k];
      EXPECT_EQ(a.name, b.name);
      EXPECT_EQ(a.part, b.part);
      EXPECT_EQ(a.group, b.group);
      EXPECT_EQ(a.stack, b.stack);
      EXPECT_EQ(a.block, b.block);
      EXPECT_EQ(a.dtype, b.dtype);
      EXPECT_EQ(a.may_quantize, b.may_quantize);
      EXPECT_EQ(a.may_cast, b.may_cast);
    }
  }
}

TEST(ConvertProfileTest, PlacesMayBeLeftOut) {
  const v1::RunProfile message = FromEngine(Profile(), /*places=*/false);
  EXPECT_TRUE(message.places().empty());
  EXPECT_EQ(ToEngine(message)->places, nullptr);
}

TEST(ConvertProfileTest, OfAPlanOnlyWhatChangesActivationsIsTheVariant) {
  v1::Plan plan;
  plan.set_offload("leaf");
  plan.set_max_device_memory(1);
  EXPECT_EQ(VariantOf(plan), engine::PhaseVariant{});
  plan.set_chunk_feed_forward(64);
  EXPECT_EQ(VariantOf(plan), (engine::PhaseVariant{.vae_tiling = {}, .chunk_feed_forward = 64}));
}

TEST(ConvertProfileTest, WhatIsNoPhaseAndNoPlaceIsRefused) {
  const std::vector<std::function<void(v1::PhaseNeed&)>> bad_phases = {
      [](v1::PhaseNeed& phase) { phase.clear_stage(); },
      [](v1::PhaseNeed& phase) { phase.set_stage(static_cast<v1::Stage>(77)); },
      [](v1::PhaseNeed& phase) { phase.set_device_activations(-1); },
      [](v1::PhaseNeed& phase) { phase.set_host_activations(-1); },
      [](v1::PhaseNeed& phase) { phase.set_rows(-1); },
      [](v1::PhaseNeed& phase) { phase.set_linear_flops(-1); },
      [](v1::PhaseNeed& phase) { phase.set_attention_flops(std::nan("")); },
      [](v1::PhaseNeed& phase) {
        phase.set_convolution_flops(std::numeric_limits<double>::infinity());
      },
      [](v1::PhaseNeed& phase) { phase.mutable_kernels()->set_launches(-1); },
      [](v1::PhaseNeed& phase) { phase.mutable_kernels()->set_bytes_read(std::nan("")); },
      [](v1::PhaseNeed& phase) { phase.mutable_kernels()->set_bytes_written(-1); },
      [](v1::PhaseNeed& phase) { phase.mutable_kernels()->set_roofline_seconds(-1); },
      [](v1::PhaseNeed& phase) { phase.set_passes(-0.5); }};
  for (size_t i = 0; i < bad_phases.size(); ++i) {
    v1::RunProfile message = FromEngine(Profile(), /*places=*/true);
    bad_phases[i](*message.mutable_variants(0)->mutable_phases(1));
    const absl::Status status = ToEngine(message).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << i << ": " << status;
    EXPECT_NE(status.message().find("a phase of 'vae'"), std::string::npos) << status;
  }
  const std::vector<std::function<void(v1::WeightPlace&)>> bad_places = {
      [](v1::WeightPlace& place) { place.set_dtype("int4"); },
      [](v1::WeightPlace& place) { place.clear_dtype(); },
      [](v1::WeightPlace& place) { place.set_stack(-2); },
      [](v1::WeightPlace& place) { place.set_block(-2); }};
  for (size_t i = 0; i < bad_places.size(); ++i) {
    v1::RunProfile message = FromEngine(Profile(), /*places=*/true);
    bad_places[i](*message.mutable_places(0)->mutable_weights(1));
    const absl::Status status = ToEngine(message).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << i << ": " << status;
    EXPECT_NE(status.message().find("'proj_in.bias'"), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace kino::convert
