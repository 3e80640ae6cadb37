// What HunyuanVideo's checkpoints say of the requests they take.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "engine/describe/describe.h"
#include "tests/support/bare_model.h"
#include "tests/support/resolving_test.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::BareModel;
using ::kino::testing::SafetensorsOf;
using ::kino::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;

absl::StatusOr<ModelDescription> Describe(const BareModel& bare) {
  const TempDir folder;
  WriteBareModel(folder, bare);
  return DescribeModel(folder.path());
}

const Json kLlama = {{"architectures", {"LlamaModel"}}, {"model_type", "llama"}};
const Json kClip = {{"architectures", {"CLIPTextModel"}}, {"model_type", "clip_text_model"}};
const Json kLlava = {{"architectures", {"LlavaForConditionalGeneration"}},
                     {"model_type", "llava"},
                     {"image_token_index", 128257},
                     {"vision_config", {{"model_type", "clip_vision_model"}}},
                     {"text_config", {{"model_type", "llama"}}}};
const Json kSiglip = {{"architectures", {"SiglipVisionModel"}},
                      {"model_type", "siglip_vision_model"}};

constexpr char kLlavaProcessor[] = "image_processor/preprocessor_config.json";
constexpr char kSiglipProcessor[] = "feature_extractor/preprocessor_config.json";

BareModel Model(const std::string& pipeline, const Json& transformer = Json::object(),
                const Json& text_encoder = kLlama) {
  BareModel model = {.pipeline_class = "Hunyuan" + pipeline + "Pipeline",
                     .transformer = transformer,
                     .scheduler = {{"shift", 7.0}},
                     .encoders = {{"text_encoder", text_encoder}, {"text_encoder_2", kClip}}};
  if (pipeline == "VideoFramepack") {
    model.encoders["image_encoder"] = kSiglip;
    model.files[kSiglipProcessor] = {{"image_processor_type", "SiglipImageProcessor"}};
  } else if (pipeline == "VideoImageToVideo") {
    model.files[kLlavaProcessor] = {{"image_processor_type", "CLIPImageProcessor"}};
  }
  return model;
}
const BareModel kText = Model("Video");
const BareModel kTokenReplace =
    Model("VideoImageToVideo", {{"image_condition_type", "token_replace"}}, kLlava);
const BareModel kLatentConcat = Model(
    "VideoImageToVideo",
    {{"image_condition_type", "latent_concat"}, {"in_channels", 33}, {"guidance_embeds", false}},
    kLlava);
const BareModel kSkyReels = Model("SkyreelsImageToVideo", {{"in_channels", 32}});
const BareModel kFramePack =
    Model("VideoFramepack",
          {{"has_clean_x_embedder", true}, {"has_image_proj", true}, {"image_proj_dim", 1152}});

class HunyuanVideoTest : public testing::ResolvingTest {
 protected:
  void Use(const BareModel& bare, bool with_image = true) {
    const absl::StatusOr<ModelDescription> model = Describe(bare);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *model;
    request_ = {};
    request_.prompt = "a cat";
    if (with_image) request_.conditions = {Condition{}};
  }
  // The knobs of the effective request, "name=value" each.
  std::vector<std::string> Knobs() const {
    const ResolvedRequest resolved = Resolve();
    EXPECT_TRUE(resolved.violations.empty()) << FirstViolation(resolved.violations);
    std::vector<std::string> knobs;
    for (const auto& [name, value] : resolved.request.knobs.values) {
      const auto* integer = std::get_if<int64_t>(&value);
      const double number =
          integer != nullptr ? static_cast<double>(*integer) : std::get<double>(value);
      knobs.push_back(name + "=" + std::to_string(static_cast<int>(number)));
    }
    return knobs;
  }
  int FramesOut(int frames) {
    request_.num_frames = frames;
    const ResolvedRequest resolved = Resolve();
    EXPECT_TRUE(resolved.violations.empty()) << FirstViolation(resolved.violations);
    // An effective request resolves to itself.
    EXPECT_EQ(ResolveRequest(model_, resolved.request, 1).request, resolved.request);
    return model_.details->OutputOf(resolved.request).num_frames;
  }
  std::string Violation() const {
    return std::string(FirstViolation(Resolve().violations).message());
  }
};

TEST_F(HunyuanVideoTest, EachKindHasItsPipelinesDefaults) {
  Use(kText, /*with_image=*/false);
  EXPECT_THAT(Knobs(), ElementsAre("max_sequence_length=256", "true_cfg_scale=1"));
  Request effective = Resolve().request;
  EXPECT_EQ(effective.task, Task::kTextToVideo);
  EXPECT_EQ(model_.details->OutputOf(effective), (VideoSize{720, 1280, 129}));
  EXPECT_EQ(effective.guidance_scale, 6.0);
  EXPECT_EQ(effective.fps, 24.0);
  EXPECT_FALSE(effective.negative_prompt.has_value());
  Use(kTokenReplace);
  EXPECT_THAT(Knobs(), ElementsAre("image_embed_interleave=4", "max_sequence_length=256",
                                   "true_cfg_scale=1"));
  effective = Resolve().request;
  EXPECT_EQ(effective.task, Task::kImageToVideo);
  EXPECT_EQ(effective.guidance_scale, 1.0);
  Use(kLatentConcat);
  EXPECT_THAT(Knobs(), ElementsAre("image_embed_interleave=2", "max_sequence_length=256",
                                   "true_cfg_scale=1"));
  Use(kSkyReels);
  EXPECT_THAT(Knobs(), ElementsAre("max_sequence_length=256", "true_cfg_scale=6"));
  effective = Resolve().request;
  EXPECT_EQ(model_.details->OutputOf(effective), (VideoSize{544, 960, 97}));
  EXPECT_EQ(effective.guidance_scale, 1.0);
  Use(kFramePack);
  EXPECT_THAT(Knobs(), ElementsAre("latent_window_size=9", "max_sequence_length=256",
                                   "sampling_type=0", "true_cfg_scale=1"));
  EXPECT_EQ(Resolve().request.guidance_scale, 6.0);
  EXPECT_EQ(Resolve().request.fps, 30.0);
}

TEST_F(HunyuanVideoTest, WhatComesOutIsWhatThePipelineGives) {
  Use(kText, /*with_image=*/false);
  for (const auto& [asked, frames] : {std::pair{1, 1}, {4, 1}, {5, 5}, {128, 125}, {129, 129}})
    EXPECT_EQ(FramesOut(asked), frames) << asked;
  // The image's own frames do not come out.
  Use(kLatentConcat);
  for (const auto& [asked, frames] : {std::pair{5, 1}, {8, 1}, {9, 5}, {129, 125}})
    EXPECT_EQ(FramesOut(asked), frames) << asked;
  request_.num_frames = 4;
  EXPECT_EQ(Violation(), "num_frames: the first 4 frames do not come out, expected more, got 1");
  // Whole sections of 36 frames, as many as cover the frames when each covers 33.
  Use(kFramePack);
  for (const auto& [asked, frames] :
       {std::pair{1, 37}, {33, 37}, {34, 73}, {66, 73}, {67, 109}, {129, 145}, {145, 181}})
    EXPECT_EQ(FramesOut(asked), frames) << asked;
  request_.knobs.values["latent_window_size"] = int64_t{4};
  EXPECT_EQ(FramesOut(27), 3 * 16 + 1);
}

TEST_F(HunyuanVideoTest, KnobsOfAnotherKindAreRefused) {
  const auto refused = [this](const char* knob) {
    request_.knobs.values = {{knob, int64_t{1}}};
    return ViolatedFields();
  };
  for (const BareModel* model : {&kTokenReplace, &kSkyReels}) {
    Use(*model);
    EXPECT_THAT(refused("sampling_type"), ElementsAre("hunyuan_video.sampling_type"));
    EXPECT_THAT(refused("latent_window_size"), ElementsAre("hunyuan_video.latent_window_size"));
  }
  for (const BareModel* model : {&kSkyReels, &kFramePack}) {
    Use(*model);
    EXPECT_THAT(refused("image_embed_interleave"),
                ElementsAre("hunyuan_video.image_embed_interleave"));
  }
  Use(kText, /*with_image=*/false);
  EXPECT_THAT(refused("sampling_type"), ElementsAre("hunyuan_video.sampling_type"));
}

TEST_F(HunyuanVideoTest, OneImageAtTheStartIsTaken) {
  for (const BareModel* model : {&kTokenReplace, &kLatentConcat, &kSkyReels, &kFramePack}) {
    Use(*model);
    EXPECT_THAT(ViolatedFields(), IsEmpty());
    request_.conditions[0].frame_index = 4;
    EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[0].frame_index"));
    request_.conditions[0] = {.strength = 0.5};
    EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[0].strength"));
    request_.conditions[0] = {.kind = ConditionKind::kVideo};
    EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
    request_.conditions.clear();
    EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
  }
}

TEST_F(HunyuanVideoTest, OnlyFramePackFromTheEndTakesALastImage) {
  Use(kFramePack);
  request_.num_frames = 50;
  request_.conditions = {Condition{}, {.frame_index = 49}};
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  request_.conditions[1].frame_index = 48;
  EXPECT_EQ(Violation(),
            "conditions[1]: expected an image of strength 1 at the last frame, 49; got IMAGE of "
            "strength 1 at frame 48");
  request_.conditions[1] = {.frame_index = 49, .strength = 0.5};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[1]"));
  request_.conditions[1] = {.kind = ConditionKind::kVideo, .frame_index = 49};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[1]"));
  request_.conditions[1] = {.frame_index = 49};
  // Of the first one it asks what it asks of one alone.
  request_.conditions[0] = {.frame_index = 1};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[0].frame_index"));
  request_.conditions[0] = {.strength = 0.5};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[0].strength"));
  request_.conditions[0] = {};
  request_.knobs.values["sampling_type"] = int64_t{1};
  EXPECT_THAT(Violation(), HasSubstr("takes no last image"));
  Use(kTokenReplace);
  request_.conditions = {Condition{}, {.frame_index = 128}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
}

// Of what is only decoded, tiles may be any.
TEST_F(HunyuanVideoTest, TilesInWhichTheImageCannotBeEncodedAreRefused) {
  // A tile begins every 60 rows, which are 7.5 latents; 7 of each are kept.
  VaeTiling tiling;
  tiling.tile_sample_min_height = tiling.tile_sample_min_width = 64;
  tiling.tile_sample_stride_height = 60;
  tiling.tile_sample_stride_width = 48;
  for (const BareModel* model : {&kText, &kTokenReplace}) {
    Use(*model, /*with_image=*/model != &kText);
    request_.plan.vae_tiling = tiling;
    request_.height = 64;
    request_.width = 320;
    EXPECT_THAT(ViolatedFields(), IsEmpty());
    request_.height = 320;
    request_.width = 64;
    if (model == &kText) {
      EXPECT_THAT(ViolatedFields(), IsEmpty());
    } else {
      EXPECT_THAT(ViolatedFields(), ElementsAre("plan.vae_tiling"));
    }
  }
}

TEST_F(HunyuanVideoTest, AFolderWhoseTransformerIsAnotherPipelinesIsRefused) {
  BareModel bare = kText;
  bare.pipeline_class = kFramePack.pipeline_class;
  EXPECT_EQ(Describe(bare).status().code(), absl::StatusCode::kInvalidArgument);
  for (const int channels : {8, 17, 34}) {
    bare = kText;
    bare.transformer["in_channels"] = channels;
    EXPECT_EQ(Describe(bare).status().code(), absl::StatusCode::kUnimplemented) << channels;
  }
}

TEST_F(HunyuanVideoTest, ATransformerThatIsShownAnImageNeedsAnEncoderThatReadsOne) {
  BareModel bare = kTokenReplace;
  bare.encoders["text_encoder"] = kLlama;
  const absl::Status llama = Describe(bare).status();
  EXPECT_EQ(llama.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(llama.message()), AllOf(HasSubstr("text_encoder/config.json"),
                                                  HasSubstr("'llava'"), Not(HasSubstr("siglip"))));
  bare = kFramePack;
  bare.encoders["image_encoder"] = kClip;
  EXPECT_EQ(Describe(bare).status().code(), absl::StatusCode::kUnimplemented);
  // The text to video runs with LLaVA's language model as well.
  bare = kText;
  bare.encoders["text_encoder"] = kLlava;
  EXPECT_TRUE(Describe(bare).ok());
}

TEST_F(HunyuanVideoTest, AnImageEncoderNeedsAProcessorOfItsSize) {
  for (const auto& [whole, path] :
       {std::pair{kTokenReplace, kLlavaProcessor}, {kFramePack, kSiglipProcessor}}) {
    BareModel bare = whole;
    bare.files.clear();
    const absl::Status missing = Describe(bare).status();
    EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(missing.message()), HasSubstr(path));
    for (const Json& size : {Json(336), Json({{"shortest_edge", 224}})}) {
      bare = whole;
      bare.files[path]["size"] = size;
      bare.files[path]["crop_size"] = size.is_number() ? size : Json(224);
      bare.files[path]["do_center_crop"] = size.is_number();
      const absl::Status other = Describe(bare).status();
      EXPECT_EQ(other.code(), absl::StatusCode::kInvalidArgument) << size;
      EXPECT_THAT(std::string(other.message()), HasSubstr("224x224"));
    }
    bare = whole;
    bare.files[path]["resample"] = 2;
    EXPECT_EQ(Describe(bare).status().code(), absl::StatusCode::kUnimplemented);
  }
}

// Folders are made of each other's, and a plan must not place what is never loaded.
TEST_F(HunyuanVideoTest, AnImageEncoderIsThereOnlyForWhatLooksThroughIt) {
  const auto image_encoders = [](BareModel bare) {
    std::vector<std::string> found;
    bare.encoders["image_encoder"] = kSiglip;
    const absl::StatusOr<ModelDescription> model = Describe(bare);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) return found;
    for (const ComponentDescription& component : model->components)
      if (component.name == "image_encoder")
        found.push_back(component.part_of.empty() ? "own" : component.part_of);
    return found;
  };
  BareModel with_llava = kText;
  with_llava.encoders["text_encoder"] = kLlava;
  EXPECT_THAT(image_encoders(kText), IsEmpty());
  EXPECT_THAT(image_encoders(with_llava), IsEmpty());
  EXPECT_THAT(image_encoders(kSkyReels), IsEmpty());
  EXPECT_THAT(image_encoders(kTokenReplace), ElementsAre("text_encoder"));
  EXPECT_THAT(image_encoders(kFramePack), ElementsAre("own"));
}

TEST_F(HunyuanVideoTest, GuidanceThatTheTransformerDoesNotTakeIsRefused) {
  for (BareModel bare : {kText, kLatentConcat}) {
    bare.transformer["guidance_embeds"] = false;
    Use(bare, /*with_image=*/bare.pipeline_class != kText.pipeline_class);
    EXPECT_EQ(*Resolve().request.guidance_scale, 1.0);
    EXPECT_THAT(ViolatedFields(), IsEmpty());
    request_.guidance_scale = 1.5;
    EXPECT_THAT(ViolatedFields(), ElementsAre("guidance_scale"));
  }
  Use(kTokenReplace);
  request_.guidance_scale = 6.0;
  EXPECT_THAT(ViolatedFields(), IsEmpty());
}

TEST_F(HunyuanVideoTest, AnEncoderOfASingleFileNeedsNoConfig) {
  const TempDir folder;
  WriteBareModel(folder, kText);
  std::filesystem::remove_all(folder.path() + "/text_encoder_2");
  const std::string layer = "text_model.encoder.layers.0.";
  const std::string path = folder.Write(
      "clip_l.safetensors",
      SafetensorsOf(
          {{"text_model.embeddings.token_embedding.weight", {2, 64}, std::vector<float>(128)},
           {"text_model.embeddings.position_embedding.weight", {1, 64}, std::vector<float>(64)},
           {layer + "self_attn.q_proj.weight", {64, 64}, std::vector<float>(4096)},
           {layer + "mlp.fc1.weight", {1, 64}, std::vector<float>(64)}}));
  const absl::Status status = DescribeModel(folder.path(), {{"text_encoder_2", path}}).status();
  EXPECT_TRUE(status.ok()) << status;
}

// SkyReels and FramePack publish transformers alone, for the folder of another pipeline.
TEST_F(HunyuanVideoTest, TheTransformerSaysWhichPipelineRuns) {
  for (BareModel bare : {kSkyReels, kFramePack}) {
    bare.pipeline_class = "HunyuanVideoPipeline";
    Use(bare);
    EXPECT_EQ(Resolve().request.task, Task::kImageToVideo);
    EXPECT_THAT(ViolatedFields(), IsEmpty());
  }
  // The index of HunyuanVideo's folder names no image encoder.
  const TempDir folder;
  BareModel bare = kFramePack;
  bare.pipeline_class = "HunyuanVideoPipeline";
  WriteBareModel(folder, bare);
  Json index = {{"_class_name", "HunyuanVideoPipeline"}};
  for (const char* name : {"transformer", "vae", "text_encoder", "text_encoder_2"})
    index[name] = {"diffusers", "Model"};
  folder.Write("model_index.json", index.dump());
  const absl::StatusOr<ModelDescription> model = DescribeModel(folder.path());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->WeightedComponents(), ::testing::Contains("image_encoder"));
}

}  // namespace
}  // namespace kino::engine
