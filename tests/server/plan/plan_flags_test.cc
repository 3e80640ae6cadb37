#include "server/plan/plan_flags.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

namespace kino::plan {
namespace {

using ::testing::HasSubstr;

absl::Status Read(const std::vector<std::string>& arguments, v1::Plan* plan) {
  CLI::App app("", "x");
  PlanFlags plan_flags;
  plan_flags.Register(app);
  if (absl::Status status = command_line::Parse(app, arguments).status(); !status.ok())
    return status;
  return plan_flags.Apply(plan);
}

std::string Difference(const std::string& expected_text, const v1::Plan& plan) {
  v1::Plan expected;
  if (!google::protobuf::TextFormat::ParseFromString(expected_text, &expected)) return "not a plan";
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  differencer.Compare(expected, plan);
  return difference;
}

TEST(PlanFlags, EveryFieldHasItsFlag) {
  v1::Plan plan;
  ASSERT_TRUE(Read({"--plan",
                    "auto",
                    "--offload",
                    "leaf",
                    "--weights-home=file",
                    "--prefetch",
                    "2",
                    "--storage-dtype",
                    "float8_e4m3fn",
                    "--quantize",
                    "nf4",
                    "--quantize-skip",
                    "proj_out",
                    "--quantize-skip",
                    "norm",
                    "--llm-int8-threshold",
                    "0",
                    "--chunk-feed-forward",
                    "1024",
                    "--vae-tile-size",
                    "512,448,384,320",
                    "--vae-tile-frames",
                    "16,8",
                    "--max-device-memory",
                    "6G",
                    "--max-host-memory",
                    "16GiB"},
                   &plan)
                  .ok());
  EXPECT_EQ(Difference(R"pb(
                         mode: AUTO
                         offload: "leaf"
                         weights_home: "file"
                         prefetch: 2
                         storage_dtype: "float8_e4m3fn"
                         quantize: "nf4"
                         quantize_skip: "proj_out"
                         quantize_skip: "norm"
                         llm_int8_threshold: 0
                         chunk_feed_forward: 1024
                         vae_tiling {
                           tile_sample_min_height: 512
                           tile_sample_min_width: 448
                           tile_sample_stride_height: 384
                           tile_sample_stride_width: 320
                           tile_sample_min_num_frames: 16
                           tile_sample_stride_num_frames: 8
                           framewise: true
                         }
                         max_device_memory: 6000000000
                         max_host_memory: 17179869184
                       )pb",
                       plan),
            "");
  const auto* descriptor = plan.GetDescriptor();
  std::vector<const google::protobuf::FieldDescriptor*> set;
  plan.GetReflection()->ListFields(plan, &set);
  EXPECT_EQ(static_cast<int>(set.size()), descriptor->field_count());
}

TEST(PlanFlags, TilesInTimeMayBeTurnedOff) {
  v1::Plan plan;
  ASSERT_TRUE(Read({"--vae-tile-frames", "none"}, &plan).ok());
  EXPECT_EQ(Difference("vae_tiling { framewise: false }", plan), "");
}

TEST(PlanFlags, ComponentsMayBeGivenOneByOne) {
  v1::Plan plan;
  ASSERT_TRUE(Read({"--offload", "block:2", "--offload", "vae=none", "--quantize",
                    "text_encoder=nf4", "--quantize", "transformer=int8,vae=none"},
                   &plan)
                  .ok());
  EXPECT_EQ(plan.offload(), "block:2,vae=none");
  EXPECT_EQ(plan.quantize(), "text_encoder=nf4,transformer=int8,vae=none");
}

TEST(PlanFlags, WhatIsNotGivenStays) {
  v1::Plan plan;
  plan.set_offload("model");
  plan.add_quantize_skip("kept");
  ASSERT_TRUE(Read({"--prefetch", "0"}, &plan).ok());
  EXPECT_EQ(Difference(R"pb(offload: "model" quantize_skip: "kept" prefetch: 0)pb", plan), "");
  v1::Plan empty;
  ASSERT_TRUE(Read({}, &empty).ok());
  EXPECT_EQ(empty.ByteSizeLong(), 0u);
}

TEST(PlanFlags, TilingOfTheModelsOwnSizes) {
  v1::Plan plan;
  ASSERT_TRUE(Read({"--vae-tiling"}, &plan).ok());
  EXPECT_EQ(Difference("vae_tiling {}", plan), "");
}

TEST(PlanFlags, BadValuesNameTheirFlag) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--plan", "best"}, "--plan: expected auto, fastest or smallest, got 'best'"},
      {{"--plan", "AUTO"}, "--plan"},
      {{"--plan", "plan_mode_unspecified"}, "--plan"},
      {{"--max-device-memory", "lots"}, "--max-device-memory: expected a size such as"},
      {{"--max-host-memory", "-1"}, "--max-host-memory"},
      {{"--prefetch", "x"}, "--prefetch"},
      {{"--chunk-feed-forward", "1.5"}, "--chunk-feed-forward"},
      {{"--llm-int8-threshold", "nan"}, "--llm-int8-threshold"},
      {{"--vae-tile-size", "512"}, "--vae-tile-size"},
      {{"--vae-tile-size", "512,0"}, "--vae-tile-size"},
      {{"--vae-tile-frames", "16,8,4"}, "--vae-tile-frames"},
      {{"--vae-tile-frames", "0"}, "--vae-tile-frames"},
  };
  for (const auto& [arguments, expected] : cases) {
    v1::Plan plan;
    const absl::Status status = Read(arguments, &plan);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << expected;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected));
  }
}

}  // namespace
}  // namespace kino::plan
