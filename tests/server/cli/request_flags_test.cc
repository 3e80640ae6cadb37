#include "server/cli/request_flags.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <fstream>

namespace kino::cli {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<RequestInput> Build(const std::vector<std::string>& arguments) {
  RequestFlags request_flags;
  CLI::App app("", "test");
  request_flags.Register(app, RequestFlags::Positional::kPrompt);
  if (absl::Status status = command_line::Parse(app, arguments).status(); !status.ok())
    return status;
  return request_flags.Build(app);
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
                            "--result-ttl",
                            "36h",
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
        result_ttl { seconds: 129600 }
        tenant: "t")pb",
      &expected));
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(expected, input->request)) << difference;
  ASSERT_EQ(input->files.size(), 1u);
  EXPECT_EQ(input->files[0].path, "a.png");
}

// What is said of a condition stands behind it; what is said before them is said of all.
TEST(RequestFlags, ConditionsAreInTheOrderOfTheCommandLine) {
  const auto input =
      Build({"--strength", "0.5", "--video", "a.mp4", "--frame-index", "8", "--image", "b.png",
             "--strength=0.9", "--frame-index", "3", "--frame-index=24", "--control-video", "c.mp4",
             "x", "--image", "d.png"});
  ASSERT_TRUE(input.ok()) << input.status();
  v1::GenerateRequest expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(
        prompt: "x"
        conditions { kind: VIDEO strength: 0.5 frame_index: 8 }
        conditions { kind: IMAGE strength: 0.9 frame_index: 24 }
        conditions { kind: CONTROL_VIDEO strength: 0.5 }
        conditions { kind: IMAGE strength: 0.5 })pb",
      &expected));
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(expected, input->request))
      << input->request.DebugString();
  std::vector<std::string> paths;
  for (const ConditionFile& file : input->files) paths.push_back(file.path);
  EXPECT_THAT(paths, ElementsAre("a.mp4", "b.png", "c.mp4", "d.png"));
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
      {{"--result-ttl", "0"}, "--result-ttl"},
      {{"--request", "/absent.json"}, "/absent.json"},
      {{"--strength", "1"}, "--strength"},
      {{"--image", "a", "--strength", "much"}, "--strength: expected a finite number, got 'much'"},
      {{"--image", "a", "--strength", "inf"}, "--strength: expected a finite number, got 'inf'"},
      {{"--image", "a", "--frame-index", "0.5"}, "--frame-index: expected a whole number"},
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

// The request of a command line for a model that the server tells of.
absl::StatusOr<v1::GenerateRequest> WithKnobs(const v1::Model& model,
                                              std::vector<std::string> arguments) {
  CLI::App app("", "test");
  std::optional<std::string> prompt;
  std::optional<uint64_t> seed;
  command_line::AddOption(app, "PROMPT", &prompt, "", "");
  command_line::AddOption(app, "--seed", &seed, "N", "");
  KnobFlags knobs;
  knobs.AddPlaceholders(app, &arguments);
  v1::GenerateRequest request;
  if (absl::Status status = command_line::Parse(app, arguments).status(); !status.ok())
    return status;
  if (prompt) request.set_prompt(*prompt);
  if (!knobs.has_placeholders()) return request;
  if (absl::Status status = knobs.Register(app, model); !status.ok()) return status;
  if (absl::Status status = command_line::Parse(app, arguments).status(); !status.ok())
    return status;
  if (seed) request.set_seed(*seed);
  knobs.Apply(&request);
  return request;
}

TEST(KnobFlags, BecomeFieldsOfTheFamilysMessageOrNames) {
  const auto request =
      WithKnobs(ModelWith(kLtx),
                {"--frame-rate", "30", "--max_sequence_length", "64", "a prompt", "--sigmas",
                 "1,0.5", "--seed", "7", "--sigmas=0.2", "--new-one=0.5", "--frame-rate=31"});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt(), "a prompt");
  EXPECT_EQ(request->seed(), 7u);
  EXPECT_EQ(request->ltx().frame_rate(), 31);
  EXPECT_EQ(request->ltx().max_sequence_length(), 64);
  EXPECT_THAT(request->ltx().sigmas(), ElementsAre(1, 0.5, 0.2));
  ASSERT_EQ(request->knobs_size(), 1);
  EXPECT_EQ(request->knobs().at("new_one").number(), 0.5);

  const auto other =
      WithKnobs(ModelWith(kUnknownFamily), {"--depth", "3", "--list", "1", "--list", "2,3"});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->family_case(), v1::GenerateRequest::FAMILY_NOT_SET);
  EXPECT_EQ(other->knobs().at("depth").integer(), 3);
  EXPECT_THAT(other->knobs().at("list").numbers().values(), ElementsAre(1, 2, 3));
}

// A knob of a newer server may have the name of an option that kino has by now.
TEST(KnobFlags, OwnOptionsStayWhatTheyAre) {
  v1::Model model = ModelWith(kLtx);
  model.mutable_tasks(0)->mutable_knobs(3)->set_name("seed");
  const auto request = WithKnobs(model, {"--frame-rate", "30", "--seed", "9"});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->seed(), 9u);
  EXPECT_EQ(request->knobs_size(), 0);
}

// Values that look like options, and what stands behind "--".
TEST(KnobFlags, OnlyNamesBecomePlaceholders) {
  CLI::App app("", "test");
  std::optional<std::string> prompt, out;
  command_line::AddOption(app, "PROMPT", &prompt, "", "");
  command_line::AddOption(app, "--out", &out, "FILE", "");
  KnobFlags knobs;
  std::vector<std::string> arguments = {"--out", "--odd_name", "--", "--prompt_text"};
  knobs.AddPlaceholders(app, &arguments);
  EXPECT_FALSE(knobs.has_placeholders());
  ASSERT_TRUE(command_line::Parse(app, arguments).ok());
  EXPECT_EQ(out, "--odd_name");
  EXPECT_EQ(prompt, "--prompt_text");
}

// What the options give stands in place of what a request file gave.
TEST(KnobFlags, ReplaceWhatTheRequestHas) {
  CLI::App app("", "test");
  KnobFlags knobs;
  std::vector<std::string> arguments = {"--sigmas", "1,0.5"};
  knobs.AddPlaceholders(app, &arguments);
  ASSERT_TRUE(knobs.Register(app, ModelWith(kLtx)).ok());
  ASSERT_TRUE(command_line::Parse(app, arguments).ok());
  v1::GenerateRequest request;
  request.mutable_ltx()->add_sigmas(0.9);
  request.mutable_ltx()->set_frame_rate(24);
  knobs.Apply(&request);
  EXPECT_THAT(request.ltx().sigmas(), ElementsAre(1, 0.5));
  EXPECT_EQ(request.ltx().frame_rate(), 24);
}

// 2^32 + 128 is 128 in the field's 32 bits; the server must see what was given.
TEST(KnobFlags, ValuesThatTheFieldCannotHoldGoByName) {
  const auto request = WithKnobs(ModelWith(kLtx), {"--max-sequence-length", "4294967424"});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FALSE(request->has_ltx());
  EXPECT_EQ(request->knobs().at("max_sequence_length").integer(), 4294967424);

  v1::Model changed = ModelWith(kLtx);
  changed.mutable_tasks(0)->mutable_knobs(1)->set_type(v1::KnobInfo::NUMBER);
  const auto other = WithKnobs(changed, {"--max-sequence-length", "1.5"});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->knobs().at("max_sequence_length").number(), 1.5);
}

TEST(KnobFlags, MistakesNameTheOption) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--frame-rate", "fast"}, "--frame-rate: expected a finite number, got 'fast'"},
      {{"--frame-rate", "nan"}, "--frame-rate"},
      {{"--frame-rate"}, "--frame-rate"},
      {{"--max-sequence-length", "1.5"}, "--max-sequence-length: expected a whole number"},
      {{"--sigmas", "1,,2"}, "--sigmas: expected numbers with commas between"},
      {{"--depth", "3"},
       "unknown option '--depth'; model 'm' has --frame-rate, --max-sequence-length, --new-one, "
       "--sigmas of its own"},
      {{"--1", "3"}, "--1"},
  };
  for (const auto& [arguments, expected] : cases) {
    const absl::Status status = WithKnobs(ModelWith(kLtx), arguments).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << expected;
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected));
  }
  EXPECT_THAT(std::string(WithKnobs(ModelWith("name: 'm'"), {"--x", "1"}).status().message()),
              HasSubstr("'m' has none of its own"));
}

TEST(KnobFlags, HelpSaysWhatTheServerSays) {
  CLI::App app("", "test");
  command_line::SetUp(app);
  KnobFlags knobs;
  std::vector<std::string> arguments = {"--help"};
  knobs.AddPlaceholders(app, &arguments);
  ASSERT_TRUE(knobs.Register(app, ModelWith(kLtx)).ok());
  const std::string help = app.help();
  EXPECT_THAT(help, HasSubstr("Options of 'm' (ltx):"));
  EXPECT_THAT(help, ContainsRegex("--frame-rate X +Rate. 0.1 to 1000, default 25."));
  EXPECT_THAT(help, ContainsRegex("--max-sequence-length N +Tokens. 1 to 512."));
}

}  // namespace
}  // namespace kino::cli
