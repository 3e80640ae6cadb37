#include "server/cli/request_flags.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <fstream>

namespace kino::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

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
                            "--sigmas=1,0.5",
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
        tenant: "t")pb",
      &expected));
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(expected, input->request)) << difference;
  ASSERT_EQ(input->files.size(), 1u);
  EXPECT_EQ(input->files[0].path, "a.png");
  // What is none of kino's own is for the server to say.
  EXPECT_THAT(input->knobs, ElementsAre(Pair("frame-rate", "25"), Pair("sigmas", "1,0.5")));
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

v1::Model ModelWith(const char* knobs) {
  v1::Model model;
  model.set_name("m");
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(knobs, &model));
  return model;
}

// Of a server that knows more of LTX-Video than this kino, and a family that it does not know.
constexpr char kLtx[] = R"pb(
  name: "m"
  family: "ltx"
  tasks {
    task: TEXT_TO_VIDEO
    knobs {
      name: "frame_rate"
      type: NUMBER
      min: 0.1
      max: 1000
      default { number: 25 }
      help: "Rate."
    }
    knobs { name: "max_sequence_length" type: INTEGER min: 1 max: 512 help: "Tokens." }
    knobs { name: "sigmas" type: NUMBERS max: 1 help: "A schedule." }
    knobs { name: "new_one" type: NUMBER max: 1 help: "Later." }
  }
  tasks {
    task: IMAGE_TO_VIDEO
    knobs { name: "frame_rate" type: NUMBER }
  })pb";
constexpr char kUnknownFamily[] = R"pb(
  name: "m"
  family: "later"
  tasks {
    knobs { name: "depth" type: INTEGER max: 9 }
    knobs { name: "list" type: NUMBERS }
  })pb";

TEST(KnobFlags, BecomeFieldsOfTheFamilysMessageOrNames) {
  v1::GenerateRequest request;
  ASSERT_TRUE(ApplyKnobs(ModelWith(kLtx),
                         {{"frame-rate", "30"},
                          {"max_sequence_length", "64"},
                          {"sigmas", "1,0.5"},
                          {"sigmas", "0.2"},
                          {"new-one", "0.5"}},
                         &request)
                  .ok());
  EXPECT_EQ(request.ltx().frame_rate(), 30);
  EXPECT_EQ(request.ltx().max_sequence_length(), 64);
  EXPECT_THAT(request.ltx().sigmas(), ElementsAre(1, 0.5, 0.2));
  ASSERT_EQ(request.knobs_size(), 1);
  EXPECT_EQ(request.knobs().at("new_one").number(), 0.5);

  v1::GenerateRequest other;
  ASSERT_TRUE(ApplyKnobs(ModelWith(kUnknownFamily),
                         {{"depth", "3"}, {"list", "1"}, {"list", "2,3"}}, &other)
                  .ok());
  EXPECT_EQ(other.family_case(), v1::GenerateRequest::FAMILY_NOT_SET);
  EXPECT_EQ(other.knobs().at("depth").integer(), 3);
  EXPECT_THAT(other.knobs().at("list").numbers().values(), ElementsAre(1, 2, 3));
}

// 2^32 + 128 is 128 in the field's 32 bits; the server must see what was given.
TEST(KnobFlags, ValuesThatTheFieldCannotHoldGoByName) {
  v1::GenerateRequest request;
  ASSERT_TRUE(ApplyKnobs(ModelWith(kLtx), {{"max-sequence-length", "4294967424"}}, &request).ok());
  EXPECT_FALSE(request.has_ltx());
  EXPECT_EQ(request.knobs().at("max_sequence_length").integer(), 4294967424);

  v1::Model changed = ModelWith(kLtx);
  changed.mutable_tasks(0)->mutable_knobs(1)->set_type(v1::KnobInfo::NUMBER);
  v1::GenerateRequest other;
  ASSERT_TRUE(ApplyKnobs(changed, {{"max-sequence-length", "1.5"}}, &other).ok());
  EXPECT_EQ(other.knobs().at("max_sequence_length").number(), 1.5);
}

TEST(KnobFlags, MistakesNameTheFlag) {
  const std::pair<KnobFlag, const char*> cases[] = {
      {{"frame-rate", "fast"}, "--frame-rate: expected a finite number, got 'fast'"},
      {{"frame-rate", "nan"}, "--frame-rate"},
      {{"max-sequence-length", "1.5"}, "--max-sequence-length: expected a whole number"},
      {{"sigmas", "1,,2"}, "--sigmas: expected numbers with commas between"},
      {{"depth", "3"},
       "unknown flag '--depth'; model 'm' has --frame-rate, --max-sequence-length, --new-one, "
       "--sigmas of its own"},
  };
  for (const auto& [flag, expected] : cases) {
    v1::GenerateRequest request;
    const absl::Status status = ApplyKnobs(ModelWith(kLtx), {flag}, &request);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << expected;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected));
    EXPECT_EQ(request.ByteSizeLong(), 0u);
  }
  v1::GenerateRequest request;
  EXPECT_THAT(std::string(ApplyKnobs(ModelWith("name: 'm'"), {{"x", "1"}}, &request).message()),
              HasSubstr("'m' has no flags of its own"));
}

TEST(KnobFlags, HelpSaysWhatTheServerSays) {
  const std::string help = KnobHelp(ModelWith(kLtx));
  EXPECT_THAT(help, HasSubstr("--frame-rate\n      Rate. 0.1 to 1000, default 25."));
  EXPECT_THAT(help, HasSubstr("--max-sequence-length\n      Tokens. 1 to 512."));
}

}  // namespace
}  // namespace kino::cli
