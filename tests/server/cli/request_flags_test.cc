#include "server/cli/request_flags.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <fstream>

namespace kino::cli {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<RequestInput> Build(const std::vector<std::string>& arguments) {
  RequestFlags request_flags;
  flags::FlagSet flags("test", "");
  request_flags.Register(&flags);
  if (absl::Status status = flags.Parse(arguments); !status.ok()) return status;
  return request_flags.Build();
}

TEST(RequestFlags, EveryFlagReachesItsField) {
  const auto input = Build({"a prompt",
                            "--model",
                            "m",
                            "--task",
                            "image_to_video",
                            "--negative-prompt",
                            "n",
                            "--height",
                            "64",
                            "--width",
                            "96",
                            "--num-frames",
                            "17",
                            "--steps",
                            "25",
                            "--guidance-scale",
                            "4.5",
                            "--seed",
                            "18446744073709551615",
                            "--fps",
                            "8",
                            "--image",
                            "a.png",
                            "--frame-index",
                            "8",
                            "--strength",
                            "0.5",
                            "--frame-rate",
                            "25",
                            "--guidance-rescale",
                            "0.7",
                            "--decode-timestep",
                            "0.05",
                            "--decode-noise-scale",
                            "0.025",
                            "--max-sequence-length",
                            "64",
                            "--timesteps",
                            "1000,500",
                            "--sigmas",
                            "1,0.5",
                            "--image-cond-noise-scale",
                            "0.15",
                            "--denoise-strength",
                            "0.9",
                            "--adain-factor",
                            "0.3",
                            "--tone-map-compression-ratio",
                            "0.6",
                            "--quality",
                            "90",
                            "--lossless",
                            "--vae-tile-size",
                            "512,448,384,320",
                            "--offload",
                            "block:2",
                            "--priority",
                            "high",
                            "--label",
                            "k=v=w",
                            "--request-id",
                            "r",
                            "--start-timeout",
                            "90s",
                            "--run-timeout",
                            "1m500ms",
                            "--tenant",
                            "t"});
  ASSERT_TRUE(input.ok()) << input.status();
  v1::GenerateRequest expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(
        model: "m"
        task: IMAGE_TO_VIDEO
        prompt: "a prompt"
        negative_prompt: "n"
        height: 64
        width: 96
        num_frames: 17
        num_inference_steps: 25
        guidance_scale: 4.5
        seed: 18446744073709551615
        fps: 8
        conditions { kind: IMAGE frame_index: 8 strength: 0.5 }
        output { quality: 90 lossless: true }
        plan {
          vae_tiling {
            tile_sample_min_height: 512
            tile_sample_min_width: 448
            tile_sample_stride_height: 384
            tile_sample_stride_width: 320
          }
          offload: "block:2"
        }
        request_id: "r"
        labels { key: "k" value: "v=w" }
        priority: HIGH
        start_timeout { seconds: 90 }
        run_timeout { seconds: 60 nanos: 500000000 }
        tenant: "t"
        ltx {
          frame_rate: 25
          guidance_rescale: 0.7
          decode_timestep: 0.05
          decode_noise_scale: 0.025
          max_sequence_length: 64
          timesteps: [ 1000, 500 ]
          sigmas: [ 1, 0.5 ]
          image_cond_noise_scale: 0.15
          denoise_strength: 0.9
          adain_factor: 0.3
          tone_map_compression_ratio: 0.6
        })pb",
      &expected));
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(expected, input->request)) << difference;
  ASSERT_EQ(input->files.size(), 1u);
  EXPECT_EQ(input->files[0].path, "a.png");
}

TEST(RequestFlags, WithoutFlagsTheRequestIsEmpty) {
  const auto input = Build({});
  ASSERT_TRUE(input.ok());
  EXPECT_EQ(input->request.ByteSizeLong(), 0u);
}

TEST(RequestFlags, FlagsGoOnTopOfTheRequestFile) {
  const std::string path = testing::TempDir() + "/request.json";
  std::ofstream(path) << R"({"prompt":"from the file","height":32,"width":32})";
  const auto input = Build({"--request", path, "--height", "64"});
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_EQ(input->request.prompt(), "from the file");
  EXPECT_EQ(input->request.height(), 64);
  EXPECT_EQ(input->request.width(), 32);
}

TEST(RequestFlags, BadValuesNameTheirFlag) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--task", "dance"}, "--task"},
      {{"--priority", "urgent"}, "--priority"},
      {{"--priority", "priority_unspecified"}, "--priority"},
      {{"--label", "novalue"}, "--label"},
      {{"--sigmas", "1,nan"}, "--sigmas"},
      {{"--timesteps", "1,,2"}, "--timesteps"},
      {{"--vae-tile-size", "512"}, "--vae-tile-size"},
      {{"--vae-tile-size", "512,0"}, "--vae-tile-size"},
      {{"--vae-tile-size", "x"}, "--vae-tile-size"},
      {{"--start-timeout", "soon"}, "--start-timeout"},
      {{"--run-timeout", "-5s"}, "--run-timeout"},
      {{"--request", "/absent.json"}, "/absent.json"},
      {{"--strength", "1"}, "--strength"},
      {{"a", "--prompt", "b"}, "twice"},
  };
  for (const auto& [arguments, expected] : cases) {
    const auto input = Build(arguments);
    EXPECT_TRUE(absl::IsInvalidArgument(input.status())) << expected;
    EXPECT_THAT(std::string(input.status().message()), HasSubstr(expected));
  }
}

}  // namespace
}  // namespace kino::cli
