#include "engine/models/common/staged_run.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

using ::testing::ElementsAre;

Request EffectiveRequest() {
  Request request;
  request.seed = 3;
  return request;
}

using Log = std::shared_ptr<std::string>;

// Four frames in two pieces.
class TwoPairs final : public DecodeStream {
 public:
  explicit TwoPairs(Log log) : log_(std::move(log)) {}
  ~TwoPairs() override { *log_ += "decoder_gone "; }
  bool done() const override { return pairs_ == 2; }
  at::Tensor NextFrames(const RunContext&) override {
    *log_ += "frames" + std::to_string(2 * pairs_++) + " ";
    return at::empty({2, 1, 1, 3});
  }

 private:
  Log log_;
  int pairs_ = 0;
};

// What a decoder reads.
std::shared_ptr<const void> Components(const Log& log) {
  return {nullptr, [log](const void*) { *log += "components_gone "; }};
}

// Two steps of denoising, then a decode. What is done is written down.
class TwoStages final : public StagedRun {
 public:
  explicit TwoStages(const Log& log = std::make_shared<std::string>())
      : StagedRun(EffectiveRequest(), Components(log)), log_(log) {
    AddStage(Stage::kEncodeText, 0.1, 1, [this](const RunContext&) {
      *log_ += "text ";
      state_.text = {at::empty({1})};
      state_.latents = at::full({1}, 1.0);
      Finish(1, true);
    });
    AddStage(Stage::kDenoise, 0.6, 2, [this](const RunContext&) {
      *log_ += "step" + std::to_string(state_.step) + " ";
      EXPECT_EQ(state_.text.size(), 1u);
      state_.latents = state_.latents * 2;
      const at::Tensor drawn = state_.noise.Randn({1}, at::kFloat, c10::Device(c10::kCPU));
      noise_.push_back(drawn.item<float>());
      state_.window = state_.window.defined() ? state_.window + 1 : state_.latents;
      state_.reference = state_.reference.defined() ? state_.reference * 3 : state_.latents;
      windows_.push_back((state_.window * 100 + state_.reference).item<float>());
      Finish(1, state_.step == 1);
    });
    AddDecode(0.3, 4, &TwoStages::StartDecode);
  }
  void Next() {
    Advance(RunContext{}, [](const at::Tensor&) {});
  }
  const std::string& log() const { return *log_; }
  const std::vector<float>& noise() const { return noise_; }
  const std::vector<float>& windows() const { return windows_; }

 private:
  std::unique_ptr<DecodeStream> StartDecode() {
    *log_ += "decode ";
    EXPECT_TRUE(state_.text.empty());
    EXPECT_FALSE(state_.window.defined() || state_.reference.defined());
    EXPECT_EQ(state_.latents.item<float>(), 4);
    return std::make_unique<TwoPairs>(log_);
  }
  void Drop(Stage stage) override { *log_ += std::string("drop_") + StageName(stage) + " "; }
  Log log_;
  std::vector<float> noise_, windows_;
};

TEST(StagedRunTest, GoesThroughItsStagesAndTellsHowFar) {
  TwoStages run;
  std::vector<Stage> stages;
  for (const PipelineRun::StageShare& each : run.stages()) stages.push_back(each.stage);
  EXPECT_THAT(stages, ElementsAre(Stage::kEncodeText, Stage::kDenoise, Stage::kDecode));
  std::vector<double> fractions;
  while (!run.position().done) {
    fractions.push_back(run.position().fraction);
    run.Next();
  }
  fractions.push_back(run.position().fraction);
  const std::vector<double> expected = {0, 0.1, 0.4, 0.7, 0.85, 1};
  ASSERT_EQ(fractions.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(fractions[i], expected[i], 1e-12);
  EXPECT_EQ(run.log(),
            "text drop_encode_text step0 step1 drop_denoise decode frames0 frames2 drop_decode "
            "decoder_gone ");
}

TEST(StagedRunTest, ARepeatedStepDoesTheSameAgain) {
  TwoStages run;
  run.Next();
  run.Next();
  run.Retry({});
  EXPECT_EQ(run.position().step, 0);
  run.Next();
  run.Next();
  EXPECT_EQ(run.log(), "text drop_encode_text step0 step0 step1 drop_denoise ");
  ASSERT_EQ(run.noise().size(), 3u);
  EXPECT_EQ(run.noise()[0], run.noise()[1]);
  EXPECT_NE(run.noise()[1], run.noise()[2]);
  EXPECT_THAT(run.windows(), ElementsAre(202, 202, 306));
}

TEST(StagedRunTest, ADecodeStartsOver) {
  TwoStages run;
  for (int i = 0; i < 4; ++i) run.Next();
  EXPECT_EQ(run.position().step, 2);
  run.Retry({});
  EXPECT_EQ(run.position().stage, Stage::kDecode);
  EXPECT_EQ(run.position().step, 0);
  while (!run.position().done) run.Next();
  EXPECT_EQ(run.log(),
            "text drop_encode_text step0 step1 drop_denoise decode frames0 decoder_gone decode "
            "frames0 frames2 drop_decode decoder_gone ");
}

TEST(StagedRunTest, TheDecoderGoesBeforeWhatItReads) {
  const Log log = std::make_shared<std::string>();
  {
    TwoStages run(log);
    for (int i = 0; i < 4; ++i) run.Next();
    log->clear();
  }
  EXPECT_EQ(*log, "decoder_gone components_gone ");
}

TEST(StagedRunTest, SkipsWhatIsLeftOfAStage) {
  TwoStages run;
  run.Next();
  EXPECT_EQ(run.position().stage, Stage::kDenoise);
  EXPECT_EQ(run.position().index, 1);
  run.SkipStage();
  EXPECT_EQ(run.position().stage, Stage::kDecode);
  EXPECT_THROW(run.SkipStage(), c10::Error);
}

// Text; a step; a step of a second pass, then frames in two pieces.
class TwoPasses final : public StagedRun {
 public:
  TwoPasses() : StagedRun(EffectiveRequest()) {
    const auto step = [this](const RunContext&) { Finish(1, true); };
    AddStage(Stage::kEncodeText, 0.1, 1, step);
    AddStage(Stage::kDenoise, 0.2, 1, step);
    BeginPass();
    AddStage(Stage::kDenoise, 0.4, 1, step);
    AddDecode(0.3, 4, &TwoPasses::StartDecode);
  }

 private:
  std::unique_ptr<DecodeStream> StartDecode() {
    return std::make_unique<TwoPairs>(std::make_shared<std::string>());
  }
};

TEST(StagedRunTest, TellsInWhichPassItIs) {
  TwoPasses run;
  std::vector<int> passes;
  while (!run.position().done) {
    passes.push_back(run.position().pass);
    EXPECT_EQ(run.position().total_passes, 2);
    run.Advance(RunContext{}, [](const at::Tensor&) {});
  }
  EXPECT_THAT(passes, ElementsAre(1, 1, 2, 2, 2));
  EXPECT_EQ(TwoStages().position().total_passes, 1);
}

// Text, then a step and its frames, twice.
class TwoParts final : public StagedRun {
 public:
  TwoParts() : StagedRun(EffectiveRequest()) {
    AddStage(Stage::kEncodeText, 0.1, 1, [this](const RunContext&) {
      state_.text = {at::empty({1})};
      Finish(1, true);
    });
    for (int part = 0; part < 2; ++part) {
      if (part > 0) BeginPass();
      AddStage(Stage::kDenoise, 0.2, 1, [this](const RunContext&) {
        EXPECT_EQ(state_.text.size(), 1u) << "the text is needed until the last step";
        Finish(1, true);
      });
      AddDecode(0.2, 4, [this, part] {
        EXPECT_EQ(state_.text.empty(), part == 1);
        EXPECT_EQ(state_.tail.defined(), part == 1) << "what the part before has left";
        state_.tail = at::full({1}, part);
        *log_ += "part" + std::to_string(part) + " ";
        return std::make_unique<TwoPairs>(log_);
      });
    }
  }
  void Next() {
    Advance(RunContext{}, [](const at::Tensor&) {});
  }
  const std::string& log() const { return *log_; }

 private:
  Log log_ = std::make_shared<std::string>();
};

TEST(StagedRunTest, APartOfAVideoLeavesBeforeTheNextIsMade) {
  TwoParts run;
  std::vector<Stage> stages;
  while (!run.position().done) {
    stages.push_back(run.position().stage);
    run.Next();
  }
  EXPECT_THAT(stages, ElementsAre(Stage::kEncodeText, Stage::kDenoise, Stage::kDecode,
                                  Stage::kDecode, Stage::kDenoise, Stage::kDecode, Stage::kDecode));
  EXPECT_EQ(run.log(), "part0 frames0 frames2 decoder_gone part1 frames0 frames2 decoder_gone ");
}

TEST(StagedRunTest, ADecodeOfALaterPartStartsOverByItself) {
  TwoParts run;
  for (int i = 0; i < 6; ++i) run.Next();
  EXPECT_EQ(run.position().index, 4u);
  EXPECT_EQ(run.position().step, 2);
  run.Retry({});
  EXPECT_EQ(run.position().index, 4u);
  EXPECT_EQ(run.position().step, 0);
  while (!run.position().done) run.Next();
  EXPECT_EQ(run.log(),
            "part0 frames0 frames2 decoder_gone part1 frames0 decoder_gone part1 frames0 frames2 "
            "decoder_gone ");
}

}  // namespace
}  // namespace kino::engine
