// AutoencoderKLHunyuanVideo against diffusers, on small random models (vae_fixtures.py writes
// them), and traced as published.
#include "engine/models/hunyuan_video/vae.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/stack.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/core/json.h"
#include "engine/core/status_bridge.h"
#include "engine/core/tensor_file.h"
#include "engine/core/torch_types.h"
#include "engine/core/trace.h"
#include "engine/memory/residency.h"
#include "engine/trace/meta_kernels.h"
#include "tests/support/at_threads.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

// Sums in another order: norms in double where torch's are float32, convolutions of other blocks.
// Values reach 10. A norm of faint values makes their errors ten times as large.
double ToleranceOf(const std::string& model) { return model == "faint" ? 1e-4 : 2e-5; }

// Written once per process.
const std::string& Fixtures() {
  static const FixtureFolder* const folder = [] {
    static FixtureFolder made;
    made.RunOracle("models/hunyuan_video/vae_fixtures.py", "");
    return &made;
  }();
  return folder->path();
}

// video: [1, 3, T, H, W]
VideoSource Source(const at::Tensor& video) {
  const at::Tensor frames = video.squeeze(0).permute({1, 2, 3, 0});
  return {
      .frames = frames.size(0),
      .height = frames.size(1),
      .width = frames.size(2),
      .read = [frames](int64_t first, int64_t count) { return frames.narrow(0, first, count); }};
}

VaeTiling SpaceTiling(int tile, int stride) {
  VaeTiling tiling;
  tiling.tile_sample_min_height = tiling.tile_sample_min_width = tile;
  tiling.tile_sample_stride_height = tiling.tile_sample_stride_width = stride;
  return tiling;
}

// "decode_8.s_32_24.t_off." -> decode, 8, its tiles.
struct Case {
  explicit Case(const std::string& case_name) : name(case_name) {
    const std::vector<std::string> parts = absl::StrSplit(name, '.', absl::SkipEmpty());
    is_decode = parts[0].starts_with("decode");
    frames = std::stoi(parts[0].substr(parts[0].find('_') + 1));
    for (size_t i = 1; i < parts.size(); ++i) {
      int tile = 0, stride = 0;
      const bool sized = std::sscanf(parts[i].c_str() + 1, "_%d_%d", &tile, &stride) == 2;
      if (parts[i][0] == 's') {
        tiling = SpaceTiling(tile, stride);
        continue;
      }
      // Without tiles in space one is as large as anything.
      if (!tiling) tiling = SpaceTiling(4096, 4096);
      tiling->framewise = sized;
      if (!sized) continue;
      tiling->tile_sample_min_num_frames = tile;
      tiling->tile_sample_stride_num_frames = stride;
    }
  }
  std::string input() const { return absl::StrCat(is_decode ? "latents_" : "video_", frames); }

  std::string name;
  bool is_decode;
  int frames;
  std::optional<VaeTiling> tiling;
};

at::Tensor Decode(const HunyuanVideoVae& vae, const at::Tensor& latents,
                  const std::optional<VaeTiling>& tiling = {}) {
  const std::unique_ptr<DecodeStream> stream = vae.Decode(latents, tiling);
  std::vector<at::Tensor> frames;
  while (!stream->done()) {
    at::Tensor next = stream->Next(RunContext{});
    if (next.defined()) frames.push_back(std::move(next));
  }
  return at::cat(frames, 2);
}

// One small model, its weights held as `plan` says.
class Model {
 public:
  explicit Model(const std::string& name, c10::ScalarType dtype = at::kFloat,
                 const WeightPlan& plan = {}) {
    const std::string folder = absl::StrCat(Fixtures(), "/", name);
    const auto files = ComponentFiles::Open(folder, "");
    EXPECT_TRUE(files.ok()) << files.status();
    const auto vae = MakeComponent<HunyuanVideoVae>(*files, dtype, c10::Device(c10::kCPU));
    EXPECT_TRUE(vae.ok()) << vae.status();
    vae_ = *vae;
    vae_->residency().Configure(plan);
    auto cases = TensorFile::Open(folder + "/cases.safetensors");
    EXPECT_TRUE(cases.ok()) << cases.status();
    cases_ = *std::move(cases);
  }

  at::Tensor Tensor(const std::string& name) const {
    const auto found = cases_->tensors().find(name);
    TORCH_CHECK(found != cases_->tensors().end(), "the fixtures have no ", name);
    const TensorEntry& entry = found->second;
    return at::from_blob(const_cast<std::byte*>(entry.data), entry.shape, ToTorch(entry.dtype))
        .clone();
  }
  std::vector<Case> Cases(const std::string& prefix) const {
    std::vector<Case> cases;
    for (const auto& [name, entry] : cases_->tensors()) {
      if (name.starts_with(prefix)) cases.emplace_back(name);
    }
    return cases;
  }
  const HunyuanVideoVae& vae() const { return *vae_; }
  at::Tensor Encode(const at::Tensor& video, const std::optional<VaeTiling>& tiling = {}) const {
    return vae_->Encode(Source(video), tiling, RunContext{});
  }

 private:
  std::shared_ptr<HunyuanVideoVae> vae_;
  std::shared_ptr<const TensorFile> cases_;
};

const Model& Float(const std::string& name) {
  static std::map<std::string, Model> models;
  const auto found = models.find(name);
  return found != models.end() ? found->second : models.try_emplace(name, name).first->second;
}

double MaxError(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes()) {
    ADD_FAILURE() << "shape " << got.sizes() << ", expected " << expected.sizes();
    return 1e9;
  }
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

class HunyuanVideoVaeTest : public ::testing::TestWithParam<std::string> {
 protected:
  const kino::testing::AtThreads one_thread_{1};
  c10::InferenceMode inference_mode_;
};

TEST_P(HunyuanVideoVaeTest, DecodesEqualDiffusers) {
  const Model& model = Float(GetParam());
  const std::vector<Case> cases = model.Cases("decode_");
  EXPECT_GE(cases.size(), 9u);
  for (const Case& each : cases) {
    EXPECT_LE(MaxError(Decode(model.vae(), model.Tensor(each.input()), each.tiling),
                       model.Tensor(each.name)),
              ToleranceOf(GetParam()))
        << each.name;
  }
}

// Tiles whose latents are too few for diffusers are refused, by whoever asks before as well.
TEST_P(HunyuanVideoVaeTest, EncodesEqualDiffusersOrAreRefused) {
  const Model& model = Float(GetParam());
  const std::vector<Case> cases = model.Cases("encode_");
  EXPECT_GE(cases.size(), 10u);
  for (const Case& each : cases) {
    const at::Tensor video = model.Tensor(each.input()), expected = model.Tensor(each.name);
    const int height = static_cast<int>(video.size(3)), width = static_cast<int>(video.size(4));
    const HunyuanVideoVaeConfig& config = model.vae().config();
    const bool fits = expected.size(2) == config.latent_frames(each.frames) &&
                      expected.size(3) == height / config.spatial_ratio &&
                      expected.size(4) == width / config.spatial_ratio;
    const absl::Status check =
        config.CheckEncodeTiling(each.frames, height, width, each.tiling.value_or(VaeTiling()));
    EXPECT_EQ(check.ok(), fits) << each.name << ": " << check;
    if (fits) {
      EXPECT_LE(MaxError(model.Encode(video, each.tiling), expected), ToleranceOf(GetParam()))
          << each.name;
      continue;
    }
    const absl::Status refused = RunGuarded([&] {
      model.Encode(video, each.tiling);
      return absl::OkStatus();
    });
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << each.name << ": " << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("expected")) << each.name;
  }
}

// bfloat16 against diffusers' bfloat16, by the distance of both to float32.
TEST_P(HunyuanVideoVaeTest, Bfloat16IsAsCloseToFloat32AsDiffusersIs) {
  const Model model(GetParam(), at::kBFloat16);
  const auto rms = [](const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().sqrt().item<double>();
  };
  const at::Tensor frames = Decode(model.vae(), model.Tensor("latents_9").to(at::kBFloat16));
  EXPECT_EQ(frames.scalar_type(), at::kBFloat16);
  EXPECT_LE(rms(frames, model.Tensor("decode_9.")),
            1.1 * rms(model.Tensor("bfloat16.decode"), model.Tensor("decode_9.")));
  std::vector<at::Tensor> moments;
  for (const at::Tensor& video : model.Tensor("bfloat16.videos").unbind())
    moments.push_back(model.Encode(video));
  EXPECT_EQ(moments[0].scalar_type(), at::kBFloat16);
  const at::Tensor exact = model.Tensor("bfloat16.exact");
  EXPECT_LE(rms(at::stack(moments), exact), 1.1 * rms(model.Tensor("bfloat16.encode"), exact));
}

TEST_P(HunyuanVideoVaeTest, EveryResidencyGivesTheSameBits) {
  const Model& resident = Float(GetParam());
  const at::Tensor latents = resident.Tensor("latents_9"), video = resident.Tensor("video_21");
  const at::Tensor frames = Decode(resident.vae(), latents), moments = resident.Encode(video);
  Residency::set_poison_released(true);
  for (const char* const policy : {"model", "block:2", "leaf", "sequential"}) {
    for (const WeightsHome home : {WeightsHome::kFile, WeightsHome::kPageable}) {
      const Model away(GetParam(), at::kFloat,
                       {.residency = *ResidencyPolicy::Parse(policy), .home = home});
      EXPECT_TRUE(at::equal(Decode(away.vae(), latents), frames)) << policy;
      EXPECT_TRUE(at::equal(away.Encode(video), moments)) << policy;
    }
  }
  Residency::set_poison_released(false);
}

// Sums over several threads are in another order.
TEST_P(HunyuanVideoVaeTest, ThreadsDoNotCount) {
  const Model& model = Float(GetParam());
  const at::Tensor latents = model.Tensor("latents_9"), video = model.Tensor("video_21");
  const at::Tensor frames = Decode(model.vae(), latents), moments = model.Encode(video);
  const kino::testing::AtThreads several(3);
  EXPECT_LE(MaxError(Decode(model.vae(), latents), frames), ToleranceOf(GetParam()));
  EXPECT_LE(MaxError(model.Encode(video), moments), ToleranceOf(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Models, HunyuanVideoVaeTest,
                         ::testing::Values("usual", "faint", "no_attention", "ratio_4", "ratio_16"),
                         [](const auto& model) { return model.param; });

class HunyuanVideoVaeStreamTest : public ::testing::Test {
 protected:
  const kino::testing::AtThreads one_thread_{1};
  c10::InferenceMode inference_mode_;
};

// A tile of 17 frames, of which 13 are final at once; then 12 with each.
TEST_F(HunyuanVideoVaeStreamTest, FramesLeaveWithTheirTile) {
  const Model& model = Float("usual");
  const at::Tensor latents = model.Tensor("latents_10"), whole = Decode(model.vae(), latents);
  for (const auto& [later, name] :
       {std::pair{latents, "as it is"}, std::pair{latents.clone(), "with other latents behind"}}) {
    // The first tile has five latents; what is behind them has no say in its frames.
    if (!later.is_same(latents)) later.narrow(2, 5, 5).fill_(3);
    const std::unique_ptr<DecodeStream> stream = model.vae().Decode(later, std::nullopt);
    std::vector<int64_t> counts;
    int64_t at = 0;
    while (!stream->done()) {
      const at::Tensor frames = stream->Next(RunContext{});
      if (!frames.defined()) continue;
      counts.push_back(frames.size(2));
      if (at == 0 || later.is_same(latents)) {
        EXPECT_TRUE(at::equal(frames, whole.narrow(2, at, frames.size(2)))) << name << ", " << at;
      }
      at += frames.size(2);
    }
    EXPECT_EQ(counts, (std::vector<int64_t>{13, 12, 12}));
  }
}

TEST_F(HunyuanVideoVaeStreamTest, CancelStopsDecodeAndEncode) {
  const Model& model = Float("usual");
  CancelToken cancel;
  HostWorkCounter counter;
  RunContext context;
  context.cancel = &cancel;
  context.counter = &counter;
  const std::unique_ptr<DecodeStream> stream =
      model.vae().Decode(model.Tensor("latents_10"), std::nullopt);
  stream->Next(context);
  EXPECT_GT(counter.done(), 0u);
  cancel.Cancel();
  const auto ends = [](const auto& body) {
    return RunGuarded([&] {
             body();
             return absl::OkStatus();
           })
        .code();
  };
  EXPECT_EQ(ends([&] { stream->Next(context); }), absl::StatusCode::kCancelled);
  EXPECT_EQ(
      ends([&] { model.vae().Encode(Source(model.Tensor("video_21")), std::nullopt, context); }),
      absl::StatusCode::kCancelled);
}

TEST_F(HunyuanVideoVaeStreamTest, BytesAreEncodedAsTheFloatsTheyStandFor) {
  const Model& model = Float("usual");
  const at::Tensor bytes =
      at::randint(256, {21, 16, 24, 3}, at::make_generator<at::CPUGeneratorImpl>(5),
                  at::TensorOptions().dtype(at::kByte));
  const at::Tensor video =
      (bytes.to(at::kFloat) / 255.0 * 2.0 - 1.0).permute({3, 0, 1, 2}).unsqueeze(0);
  VideoSource source = Source(video);
  source.read = [&](int64_t first, int64_t count) { return bytes.narrow(0, first, count); };
  EXPECT_TRUE(at::equal(model.vae().Encode(source, {}, RunContext{}), model.Encode(video)));
}

TEST_F(HunyuanVideoVaeStreamTest, AModelThatNeverEncodesHoldsTheDecoderAlone) {
  ComponentFiles files = *ComponentFiles::Open(Fixtures() + "/usual", "");
  files.config["has_encoder"] = false;
  const auto loaded = MakeComponent<HunyuanVideoVae>(files, at::kFloat, c10::Device(c10::kCPU));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  HunyuanVideoVae& vae = **loaded;
  vae.residency().Configure({});
  for (const auto& weight : vae.weights().weights()) {
    EXPECT_TRUE(weight->name.starts_with("decoder.") || weight->name.starts_with("post_quant_conv"))
        << weight->name;
  }
  const Model& whole = Float("usual");
  const at::Tensor latents = whole.Tensor("latents_9"), video = whole.Tensor("video_21");
  EXPECT_TRUE(at::equal(Decode(vae, latents), Decode(whole.vae(), latents)));
  EXPECT_THROW(vae.Encode(Source(video), {}, RunContext{}), c10::Error);
}

TEST_F(HunyuanVideoVaeStreamTest, SizesThatAreNoWholeLatentsAreRefused) {
  const Model& model = Float("usual");
  EXPECT_THROW(model.Encode(at::empty({1, 3, 1, 20, 16})), c10::Error);
  EXPECT_THROW(model.Encode(at::empty({1, 3, 1, 16, 20})), c10::Error);
  EXPECT_THROW(model.Encode(at::empty({1, 3, 0, 16, 16})), c10::Error);
  EXPECT_THROW(model.vae().Decode(at::empty({1, 4, 0, 2, 2}), std::nullopt), c10::Error);
  EXPECT_THROW(model.vae().Decode(at::empty({1, 5, 2, 2, 2}), std::nullopt), c10::Error);
}

// On meta tensors, in bfloat16, on a GPU.
class HunyuanVideoVaeTraceTest : public ::testing::Test {
 protected:
  // Most bytes at a time, beside weights.
  static int64_t DecodePeak(const HunyuanVideoVaeConfig& config, int frames, int64_t height,
                            int64_t width, const std::optional<VaeTiling>& tiling) {
    return Peak(config, [&](const HunyuanVideoVae& vae) {
      const at::Tensor latents =
          at::empty({1, config.latent_channels, config.latent_frames(frames),
                     height / config.spatial_ratio, width / config.spatial_ratio},
                    at::device(at::kMeta).dtype(at::kBFloat16));
      const std::unique_ptr<DecodeStream> stream = vae.Decode(latents, tiling);
      int64_t given = 0;
      while (!stream->done()) {
        const at::Tensor next = stream->Next(RunContext{});
        if (!next.defined()) continue;
        given += next.size(2);
        EXPECT_EQ(next.size(3), height);
        EXPECT_EQ(next.size(4), width);
      }
      EXPECT_EQ(given, frames);
    });
  }
  static int64_t EncodePeak(const HunyuanVideoVaeConfig& config, int frames, int64_t height,
                            int64_t width, const std::optional<VaeTiling>& tiling) {
    return Peak(config, [&](const HunyuanVideoVae& vae) {
      const VideoSource video = {
          .frames = frames, .height = height, .width = width, .read = [&](int64_t, int64_t count) {
            return at::empty({count, height, width, 3}, at::device(at::kMeta).dtype(at::kBFloat16));
          }};
      EXPECT_EQ(vae.Encode(video, tiling, RunContext{}).size(2), config.latent_frames(frames));
    });
  }

  // The VAE's frames weigh next to nothing against an attention's weights.
  static HunyuanVideoVaeConfig Narrow() {
    HunyuanVideoVaeConfig config;
    config.block_out_channels = {8, 8, 8, 8};
    config.norm_num_groups = 4;
    return config;
  }
  static VaeTiling WithoutTime() {
    VaeTiling tiling = SpaceTiling(4096, 4096);
    tiling.framewise = false;
    return tiling;
  }

 private:
  static int64_t Peak(const HunyuanVideoVaeConfig& config,
                      absl::FunctionRef<void(const HunyuanVideoVae&)> run) {
    const c10::InferenceMode inference_mode;
    InstallMetaKernels();
    // Its weights are others': only their shapes count here.
    const auto files = ComponentFiles::Open(Fixtures() + "/usual", "");
    EXPECT_TRUE(files.ok()) << files.status();
    HunyuanVideoVae vae(config, *files, at::kBFloat16, c10::Device(at::kMeta));
    vae.weights().HoldEmpty();
    Trace trace({.is_gpu = true});
    trace.Reset();
    const int64_t before = trace.counts().device_peak;
    run(vae);
    return trace.counts().device_peak - before;
  }
};

TEST_F(HunyuanVideoVaeTraceTest, MemoryDoesNotGrowWithTheVideo) {
  const HunyuanVideoVaeConfig config;
  for (const auto& [name, tiling] :
       {std::pair{"untiled", std::optional<VaeTiling>()}, {"tiled", VaeTiling()}}) {
    const int64_t decode = DecodePeak(config, 121, 512, 768, tiling);
    const int64_t encode = EncodePeak(config, 121, 512, 768, tiling);
    std::printf("512x768x121 %s: decode %.2f GB, encode %.2f GB\n", name,
                static_cast<double>(decode) / 1e9, static_cast<double>(encode) / 1e9);
    EXPECT_LE(static_cast<double>(decode),
              1.02 * static_cast<double>(DecodePeak(config, 37, 512, 768, tiling)))
        << name;
    EXPECT_LE(static_cast<double>(encode),
              1.02 * static_cast<double>(EncodePeak(config, 37, 512, 768, tiling)))
        << name;
  }
  EXPECT_LE(DecodePeak(config, 121, 512, 768, std::nullopt), 6'600'000'000);
  EXPECT_LE(DecodePeak(config, 121, 512, 768, VaeTiling()), 1'800'000'000);
  EXPECT_LE(DecodePeak(config, 129, 720, 1280, std::nullopt), 16'000'000'000);
}

// 190,464 tokens see each other: the weights of one frame's alone are 2.3 GB, a mask is 73 GB.
TEST_F(HunyuanVideoVaeTraceTest, AttentionHoldsNoWeightsOfAllForAll) {
  const HunyuanVideoVaeConfig config = Narrow();
  const int64_t decode = DecodePeak(config, 121, 512, 768, WithoutTime());
  const int64_t encode = EncodePeak(config, 121, 512, 768, WithoutTime());
  const int64_t clip = int64_t{121} * 512 * 768 * 8 * 2;
  std::printf("narrow: decode %.2f GB, encode %.2f GB, a clip %.2f GB\n",
              static_cast<double>(decode) / 1e9, static_cast<double>(encode) / 1e9,
              static_cast<double>(clip) / 1e9);
  EXPECT_LE(decode, 3 * clip);
  EXPECT_LE(encode, 3 * clip);
}

TEST(HunyuanVideoVaeConfigTest, EmptyConfigIsTheClassDefault) {
  const auto config = HunyuanVideoVaeConfig::FromJson(nlohmann::json::object(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->block_out_channels, (std::vector<int>{128, 256, 512, 512}));
  EXPECT_EQ(config->latent_channels, 16);
  EXPECT_EQ(config->spatial_ratio, 8);
  EXPECT_EQ(config->scaling_factor, 0.476986);
  EXPECT_TRUE(config->mid_block_add_attention);
  EXPECT_EQ(config->latent_frames(129), 33);
  EXPECT_EQ(config->frames(33), 129);
  const VaeTileSizes sizes = config->tile_sizes();
  EXPECT_EQ(sizes.unit, 8);
  EXPECT_EQ(sizes.frames_unit, 4);
}

// Absent: the class's own; and what a request says in their place.
TEST(HunyuanVideoVaeConfigTest, TilesInTimeAreOnUnlessTheyAreTurnedOff) {
  const VaeTileSizes sizes = HunyuanVideoVaeConfig().tile_sizes();
  const std::optional<TimeTiles> own = sizes.InTime(std::nullopt);
  ASSERT_TRUE(own.has_value());
  EXPECT_EQ(own->frames, 16);
  EXPECT_EQ(own->stride, 12);
  VaeTiling request;
  request.tile_sample_min_num_frames = 32;
  ASSERT_TRUE(sizes.InTime(request).has_value());
  EXPECT_EQ(sizes.InTime(request)->frames, 32);
  EXPECT_EQ(sizes.InTime(request)->stride, 12);
  request.framewise = false;
  EXPECT_FALSE(sizes.InTime(request).has_value());
}

TEST(HunyuanVideoVaeConfigTest, WhatNoModelCanBeIsRefusedByName) {
  const auto message = [](const char* text) {
    const auto config = HunyuanVideoVaeConfig::FromJson(nlohmann::json::parse(text), "vae.json");
    if (config.ok()) return std::string("it is taken");
    return std::string(config.status().message());
  };
  EXPECT_THAT(message(R"({"block_out_channels": [32, 32]})"), HasSubstr("2 entries"));
  EXPECT_THAT(message(R"({"block_out_channels": [32, 32, 48, 64]})"), HasSubstr("has 48"));
  EXPECT_THAT(message(R"({"block_out_channels": [32, 32, 64]})"), HasSubstr("down_block_types"));
  EXPECT_THAT(
      message(R"({"up_block_types": ["UpBlock3D", "UpBlock3D", "UpBlock3D", "UpBlock3D"]})"),
      HasSubstr("up_block_types"));
  EXPECT_THAT(message(R"({"spatial_compression_ratio": 4})"), HasSubstr("expected 8 or 16"));
  EXPECT_THAT(message(R"({"spatial_compression_ratio": 12})"), HasSubstr("expected 8 or 16"));
  EXPECT_THAT(message(R"({"temporal_compression_ratio": 8})"),
              HasSubstr("temporal_compression_ratio"));
  EXPECT_THAT(message(R"({"act_fn": "relu"})"), HasSubstr("relu"));
  EXPECT_THAT(message(R"({"latent_channels": 0})"), HasSubstr("latent_channels"));
  EXPECT_THAT(message(R"({"out_channels": 4})"), HasSubstr("out_channels"));
  EXPECT_THAT(message(R"({"layers_per_block": "2"})"), HasSubstr("layers_per_block"));
  EXPECT_THAT(message(R"({"scaling_factor": 0})"), HasSubstr("scaling_factor"));
  EXPECT_THAT(message(R"({"norm_num_groups": 0})"), HasSubstr("norm_num_groups"));
}

}  // namespace
}  // namespace kino::engine
