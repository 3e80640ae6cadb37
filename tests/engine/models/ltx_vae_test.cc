// The LTX-Video VAE against diffusers, on small random models of every generation
// (ltx_vae_fixtures.py writes them).
#include "engine/models/ltx/vae.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/memory_counter.h"
#include "engine/core/status_bridge.h"
#include "engine/core/tensor_file.h"
#include "engine/core/torch_types.h"
#include "engine/core/trace.h"
#include "engine/memory/residency.h"
#include "engine/trace/meta_kernels.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kNoiseSeed = 7;
constexpr double kTimestep = 0.05;

// Written once per process.
const std::string& Fixtures() {
  static const FixtureFolder* const folder = [] {
    static FixtureFolder made;
    made.RunOracle("models/ltx_vae_fixtures.py", "");
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

// One small model, its weights held as `plan` says.
class Model {
 public:
  Model(const std::string& name, c10::ScalarType dtype, const WeightPlan& plan = {},
        c10::Device device = c10::Device(c10::kCPU)) {
    const std::string folder = absl::StrCat(Fixtures(), "/", name);
    const auto files = ComponentFiles::Open(folder, "");
    EXPECT_TRUE(files.ok()) << files.status();
    const auto vae = MakeComponent<LtxVae>(*files, dtype, device);
    EXPECT_TRUE(vae.ok()) << vae.status();
    vae_ = *vae;
    if (device.is_meta()) {
      InstallMetaKernels();
      vae_->weights().HoldEmpty();
    } else {
      vae_->residency().Configure(plan);
    }
    auto cases = TensorFile::Open(folder + "/cases.safetensors");
    EXPECT_TRUE(cases.ok()) << cases.status();
    cases_ = *std::move(cases);
  }

  at::Tensor Case(const std::string& name) const {
    const auto found = cases_->tensors().find(name);
    TORCH_CHECK(found != cases_->tensors().end(), "the fixtures have no ", name);
    const TensorEntry& entry = found->second;
    return at::from_blob(const_cast<std::byte*>(entry.data), entry.shape, ToTorch(entry.dtype))
        .clone();
  }
  std::vector<std::string> CaseNames(const std::string& prefix) const {
    std::vector<std::string> names;
    for (const auto& [name, entry] : cases_->tensors()) {
      if (name.starts_with(prefix)) names.push_back(name);
    }
    return names;
  }
  const LtxVae& vae() const { return *vae_; }

  // Runs of at most so many frames in each layer.
  LtxVaeDecodeOptions Options(int frames_per_run) const {
    LtxVaeDecodeOptions options;
    if (vae_->config().timestep_conditioning)
      options.timestep = at::full({1}, kTimestep, at::kFloat);
    options.noise_generator = at::make_generator<at::CPUGeneratorImpl>(kNoiseSeed);
    options.runs = RunLength{.frames = frames_per_run};
    return options;
  }
  at::Tensor Encode(const at::Tensor& video, const std::optional<VaeTiling>& tiling = {}) const {
    return vae_->Encode(Source(video), tiling, RunContext{});
  }
  at::Tensor Decode(const at::Tensor& latents, const LtxVaeDecodeOptions& options) const {
    const std::unique_ptr<DecodeStream> stream = vae_->Decode(latents, options);
    std::vector<at::Tensor> frames;
    while (!stream->done()) {
      at::Tensor next = stream->Next(RunContext{});
      if (next.defined()) frames.push_back(std::move(next));
    }
    return at::cat(frames, 2);
  }

 private:
  std::shared_ptr<LtxVae> vae_;
  std::shared_ptr<const TensorFile> cases_;
};

const Model& Float(const std::string& name) {
  static std::map<std::string, Model> models;
  const auto found = models.find(name);
  return found != models.end() ? found->second
                               : models.try_emplace(name, name, at::kFloat).first->second;
}

double MaxError(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes()) {
    ADD_FAILURE() << "shape " << got.sizes() << ", expected " << expected.sizes();
    return 1e9;
  }
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

// Tile sizes from a case's name: "space.decode_96_64" -> (96, 64).
std::pair<int, int> TileOf(const std::string& name) {
  int tile = 0, stride = 0;
  TORCH_CHECK(std::sscanf(name.c_str() + name.find('_'), "_%d_%d", &tile, &stride) == 2, name);
  return {tile, stride};
}

VaeTiling SpaceTiling(int tile, int stride) {
  VaeTiling tiling;
  tiling.tile_sample_min_height = tiling.tile_sample_min_width = tile;
  tiling.tile_sample_stride_height = tiling.tile_sample_stride_width = stride;
  return tiling;
}

VaeTiling TimeTiling(const std::string& name) {
  VaeTiling tiling = name.ends_with("_space") ? SpaceTiling(64, 32) : SpaceTiling(4096, 4096);
  tiling.framewise = true;
  const auto [tile, stride] = TileOf(name);
  tiling.tile_sample_min_num_frames = tile;
  tiling.tile_sample_stride_num_frames = stride;
  return tiling;
}

class LtxVaeTest : public ::testing::TestWithParam<std::string> {
 protected:
  // One thread: the models are too small to be worth waking a second.
  void SetUp() override { at::set_num_threads(1); }
  c10::InferenceMode inference_mode_;
};
class LtxVaeTilingTest : public LtxVaeTest {};
class LtxVaeMemoryTest : public LtxVaeTest {
 protected:
  static std::map<std::string, std::optional<VaeTiling>> Tilings() {
    VaeTiling in_time = SpaceTiling(96, 64);
    in_time.framewise = true;
    return {{"untiled", std::nullopt},
            {"tiles in space", SpaceTiling(96, 64)},
            {"tiles in time", in_time}};
  }
};

TEST_P(LtxVaeTest, WholeDecodeEqualsDiffusers) {
  const Model& model = Float(GetParam());
  for (const int frames : {1, 2, 3, 5, 9}) {
    const std::string name = absl::StrCat("decode_", frames);
    const at::Tensor got = model.Decode(model.Case(name + ".in"), model.Options(frames));
    EXPECT_LE(MaxError(got, model.Case(name + ".out")), 2e-5) << name;
  }
}

TEST_P(LtxVaeTest, StreamingDecodeEqualsWholeDecode) {
  const Model& model = Float(GetParam());
  for (const int frames : {1, 2, 3, 5, 9}) {
    const std::string name = absl::StrCat("decode_", frames);
    for (const int per_run : {1, 2, 3, 4}) {
      const at::Tensor got = model.Decode(model.Case(name + ".in"), model.Options(per_run));
      EXPECT_LE(MaxError(got, model.Case(name + ".out")), 2e-5) << name << " by " << per_run;
    }
    // Runs of another length in each layer.
    for (const int64_t elements : {1, 200, 3000, 20000}) {
      LtxVaeDecodeOptions options = model.Options(8);
      options.runs->elements = elements;
      const at::Tensor got = model.Decode(model.Case(name + ".in"), options);
      EXPECT_LE(MaxError(got, model.Case(name + ".out")), 2e-5) << name << ", " << elements;
    }
  }
}

TEST_P(LtxVaeTest, EncodeEqualsDiffusers) {
  const Model& model = Float(GetParam());
  for (const int frames : {1, 9, 17}) {
    const std::string name = absl::StrCat("encode_", frames);
    const at::Tensor got = model.Encode(model.Case(name + ".in"));
    EXPECT_LE(MaxError(got, model.Case(name + ".out")), 2e-5) << name;
  }
}

TEST_P(LtxVaeTest, EncodeByRunsOfFramesEqualsWholeEncode) {
  const Model& model = Float(GetParam());
  const VideoSource video = Source(model.Case("encode_17.in"));
  for (const int64_t frames : {1, 2, 5, 8, 17}) {
    for (const int64_t elements : {1, 3000, 40000, 1 << 22}) {
      const at::Tensor got = model.vae().Encode(video, {}, RunContext{},
                                                RunLength{.frames = frames, .elements = elements});
      EXPECT_LE(MaxError(got, model.Case("encode_17.out")), 2e-5) << frames << ", " << elements;
    }
  }
}

TEST_P(LtxVaeTest, BytesAreEncodedAsTheFloatsTheyStandFor) {
  const Model& model = Float(GetParam());
  const at::Tensor bytes =
      at::randint(256, {9, 64, 96, 3}, at::make_generator<at::CPUGeneratorImpl>(5),
                  at::TensorOptions().dtype(at::kByte));
  const at::Tensor video = (bytes.to(at::kFloat) / 255.0 * 2.0 - 1.0).permute({3, 0, 1, 2});
  VideoSource source = Source(video.unsqueeze(0));
  source.read = [&](int64_t first, int64_t count) { return bytes.narrow(0, first, count); };
  EXPECT_TRUE(
      at::equal(model.vae().Encode(source, {}, RunContext{}), model.Encode(video.unsqueeze(0))));
}

TEST_P(LtxVaeTest, StatisticsAreTheCheckpoints) {
  const Model& model = Float(GetParam());
  EXPECT_EQ(MaxError(model.vae().latents_mean(), model.Case("latents_mean")), 0);
  EXPECT_EQ(MaxError(model.vae().latents_std(), model.Case("latents_std")), 0);
}

// bfloat16 against diffusers' bfloat16, by the distance of both to float32.
TEST_P(LtxVaeTest, Bfloat16IsAsCloseToFloat32AsDiffusersIs) {
  const Model model(GetParam(), at::kBFloat16);
  const auto rms = [](const at::Tensor& a, const at::Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).square().mean().sqrt().item<double>();
  };
  // In bfloat16 the noise is another stream of numbers than in float32, so only diffusers' bfloat16
  // can be compared with.
  const bool noisy = model.vae().config().InjectsNoise();
  const at::Tensor latents = model.Case("decode_3.in");
  const at::Tensor frames = model.Decode(latents, model.Options(3)),
                   reference = model.Case("bfloat16.decode_3");
  const at::Tensor exact = model.Case("decode_3.out");
  const double signal = exact.to(at::kDouble).std().item<double>();
  EXPECT_LE(rms(frames, reference), 0.03 * signal);
  if (!noisy) {
    EXPECT_LE(rms(frames, exact), 1.1 * rms(reference, exact));
  }
  const at::Tensor streamed = model.Decode(latents, model.Options(1));
  EXPECT_LE(rms(streamed, frames), 0.03 * signal);

  std::vector<at::Tensor> moments;
  for (const at::Tensor& video : model.Case("bfloat16.videos").unbind())
    moments.push_back(model.Encode(video));
  const at::Tensor exact_moments = model.Case("bfloat16.exact");
  EXPECT_LE(rms(at::stack(moments), exact_moments),
            1.1 * rms(model.Case("bfloat16.encode"), exact_moments));
}

TEST_P(LtxVaeTest, EveryResidencyGivesTheSameBits) {
  const Model& resident = Float(GetParam());
  // Look-ahead and more than one run in every layer.
  const at::Tensor latents = resident.Case("decode_9.in"), video = resident.Case("encode_17.in");
  const at::Tensor frames = resident.Decode(latents, resident.Options(3));
  const at::Tensor moments = resident.Encode(video);
  Residency::set_poison_released(true);
  for (const char* const policy : {"model", "block:2", "leaf", "sequential"}) {
    for (const WeightsHome home : {WeightsHome::kFile, WeightsHome::kPageable}) {
      const Model away(GetParam(), at::kFloat,
                       {.residency = *ResidencyPolicy::Parse(policy), .home = home});
      EXPECT_TRUE(at::equal(away.Decode(latents, away.Options(3)), frames));
      EXPECT_TRUE(at::equal(away.Encode(video), moments));
    }
  }
  Residency::set_poison_released(false);
}

TEST_P(LtxVaeTest, CancelStopsTheDecode) {
  const Model& model = Float(GetParam());
  const std::unique_ptr<DecodeStream> stream =
      model.vae().Decode(model.Case("decode_9.in"), model.Options(1));
  CancelToken cancel;
  HostWorkCounter counter;
  RunContext context;
  context.cancel = &cancel;
  context.counter = &counter;
  stream->Next(context);
  EXPECT_GT(counter.done(), 0u);
  cancel.Cancel();
  const absl::Status status = RunGuarded([&] {
    stream->Next(context);
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

TEST_P(LtxVaeTilingTest, TilesInSpaceEqualDiffusers) {
  const Model& model = Float(GetParam());
  for (const std::string& name : model.CaseNames("space.decode_")) {
    const auto [tile, stride] = TileOf(name);
    for (const int per_run : {1, 2, 3}) {
      LtxVaeDecodeOptions options = model.Options(per_run);
      options.tiling = SpaceTiling(tile, stride);
      EXPECT_LE(MaxError(model.Decode(model.Case("space.z"), options), model.Case(name)), 2e-5)
          << name << " by " << per_run;
    }
  }
  for (const std::string& name : model.CaseNames("space.encode_")) {
    const auto [tile, stride] = TileOf(name);
    const at::Tensor got = model.Encode(model.Case("space.x"), SpaceTiling(tile, stride));
    EXPECT_LE(MaxError(got, model.Case(name)), 2e-5) << name;
  }
}

TEST_P(LtxVaeTilingTest, TilesInTimeEqualDiffusers) {
  const Model& model = Float(GetParam());
  for (const std::string& name : model.CaseNames("time.decode_")) {
    for (const int per_run : {1, 3}) {
      LtxVaeDecodeOptions options = model.Options(per_run);
      options.tiling = TimeTiling(name);
      EXPECT_LE(MaxError(model.Decode(model.Case("time.z"), options), model.Case(name)), 2e-5)
          << name << " by " << per_run;
    }
  }
  for (const std::string& name : model.CaseNames("time.encode_")) {
    const at::Tensor got = model.Encode(model.Case("time.x"), TimeTiling(name));
    EXPECT_LE(MaxError(got, model.Case(name)), 2e-5) << name;
  }
}

// Twice the frames, both beyond what the layers look ahead. Traced: run, the larger models take
// minutes on a CPU without AVX. tests/parity/plan_accuracy_test.py measures that a trace counts
// what a run holds.
TEST_P(LtxVaeMemoryTest, DecodeDoesNotGrowWithTheVideo) {
  const Model model(GetParam(), at::kFloat, {}, c10::Device(at::kMeta));
  const auto peak = [&](int64_t frames, const std::optional<VaeTiling>& tiling) {
    Trace trace(CpuTarget());
    const at::Tensor latents =
        at::empty({1, model.vae().config().latent_channels, frames, 4, 4}, at::device(at::kMeta));
    LtxVaeDecodeOptions options = model.Options(RunLength::kFrames);
    options.tiling = tiling;
    trace.Reset();
    const int64_t before = trace.counts().device_peak;
    const std::unique_ptr<DecodeStream> stream = model.vae().Decode(latents, options);
    while (!stream->done()) stream->Next(RunContext{});
    return trace.counts().device_peak - before;
  };
  for (const auto& [name, tiling] : Tilings()) {
    const int64_t shorter = peak(18, tiling), longer = peak(36, tiling);
    EXPECT_GT(shorter, 0);
    EXPECT_LE(static_cast<double>(longer), 1.05 * static_cast<double>(shorter)) << name;
  }
}

TEST_P(LtxVaeMemoryTest, EncodeDoesNotGrowWithTheVideo) {
  const Model& model = Float(GetParam());
  InstallMemoryCounter();
  // Peak but for the moments, and theirs.
  const auto peak = [&](int64_t frames, const std::optional<VaeTiling>& tiling) {
    const at::Tensor bytes = at::full({1, 128, 128, 3}, 77, at::TensorOptions().dtype(at::kByte));
    const VideoSource source = {
        .frames = frames, .height = 128, .width = 128, .read = [&](int64_t, int64_t count) {
          return bytes.expand({count, -1, -1, -1});
        }};
    ResetHostMemoryPeak();
    const int64_t before = HostMemoryCount().live_bytes;
    const at::Tensor moments = model.vae().Encode(source, tiling, RunContext{});
    const int64_t most = HostMemoryCount().peak_bytes - before;
    return std::pair(most, static_cast<int64_t>(moments.nbytes()));
  };
  for (const auto& [name, tiling] : Tilings()) {
    const auto [shorter, shorter_moments] = peak(81, tiling);
    const auto [longer, longer_moments] = peak(161, tiling);
    // Moments in pieces, of each tile, and joined.
    const int64_t grown = 4 * (longer_moments - shorter_moments);
    EXPECT_LE(static_cast<double>(longer - grown), 1.05 * static_cast<double>(shorter)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LtxVaeTest,
                         ::testing::Values("v090", "v091", "v095", "v090_causal_decoder",
                                           "v091_causal_decoder", "v090_free_encoder",
                                           "v095_free_encoder"),
                         [](const auto& model) { return model.param; });
INSTANTIATE_TEST_SUITE_P(Models, LtxVaeTilingTest, ::testing::Values("v090", "v091", "v095"),
                         [](const auto& model) { return model.param; });

INSTANTIATE_TEST_SUITE_P(Models, LtxVaeMemoryTest,
                         ::testing::Values("v090", "v091", "v095", "v090_mid", "v095_mid"),
                         [](const auto& model) { return model.param; });

TEST(LtxVaeConfigTest, EmptyConfigIsTheClassDefault) {
  const auto config = LtxVaeConfig::FromJson(nlohmann::json::object(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->latent_channels, 128);
  EXPECT_EQ(config->spatial_compression_ratio, 32);
  EXPECT_EQ(config->temporal_compression_ratio, 8);
  EXPECT_EQ(config->down_blocks.size(), 4u);
  EXPECT_EQ(config->up_blocks.size(), 4u);
  EXPECT_FALSE(config->up_blocks[0].upsample);
  EXPECT_FALSE(config->InjectsNoise());
}

TEST(LtxVaeConfigTest, WhatNoModelCanBeIsRefusedByName) {
  const auto message = [](const char* text) {
    const auto config = LtxVaeConfig::FromJson(nlohmann::json::parse(text), "vae/config.json");
    EXPECT_FALSE(config.ok());
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(config.status().message());
  };
  EXPECT_THAT(message(R"({"down_block_types": ["A", "A", "A", "A"]})"), HasSubstr("'A'"));
  EXPECT_THAT(message(R"({"patch_size_t": 2})"), HasSubstr("patch_size_t"));
  EXPECT_THAT(message(R"({"patch_size": "4"})"), HasSubstr("patch_size"));
  EXPECT_THAT(message(R"({"decoder_layers_per_block": [1]})"),
              HasSubstr("decoder_layers_per_block"));
  EXPECT_THAT(message(R"({"upsample_factor": [0, 1, 1, 1]})"), HasSubstr("upsample_factor"));
  EXPECT_THAT(message(R"({"timestep_conditioning": true})"), HasSubstr("up block"));
  EXPECT_THAT(message(R"({"spatial_compression_ratio": 8})"), HasSubstr("compression ratios"));
  EXPECT_THAT(message(R"({"block_out_channels": [8, 16, 32, 64, 128],
                          "down_block_types": ["LTXVideo095DownBlock3D", "LTXVideo095DownBlock3D",
                                               "LTXVideo095DownBlock3D", "LTXVideo095DownBlock3D"],
                          "spatio_temporal_scaling": [true, true, true, true],
                          "downsample_type": ["spatial", "temporal", "diagonal", "spatiotemporal"]})"),
              HasSubstr("'diagonal'"));
}

}  // namespace
}  // namespace kino::engine
