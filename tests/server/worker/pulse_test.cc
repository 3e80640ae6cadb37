#include "server/worker/pulse.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/fake_engine.h"

namespace kino::worker {
namespace {

TEST(PulseTest, FollowsLoadAndRunAndNeverFalls) {
  const std::string folder = testing::TempDir() + "/pulse";
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/model_index.json") << "{}";
  std::ofstream(folder + "/load_script") << "groups=3";
  support::FakeEngine engine;
  Pulse pulse;
  EXPECT_EQ(pulse.Read().stage(), v1::STAGE_UNSPECIFIED);
  pulse.Enter(v1::LOAD);
  engine::ModelOptions options;
  options.folder = folder;
  const auto model = engine.Load(options, nullptr, &pulse.work());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(pulse.Read().stage(), v1::LOAD);
  EXPECT_EQ(pulse.Read().counter(), 3) << "each group of weights";

  engine::Request request;
  request.prompt = "steps=2 chunks=1";
  engine::RunOptions run_options;
  run_options.output.mp4 = [](std::string_view) { return absl::OkStatus(); };
  auto run = (*model)->Start(request, {}, std::move(run_options));
  ASSERT_TRUE(run.ok());
  pulse.RunBegins(run->get());
  EXPECT_EQ(pulse.Read().counter(), 3);
  EXPECT_EQ(pulse.Read().step_seconds(), 0) << "not known yet";
  ASSERT_TRUE(*(*run)->Advance());
  EXPECT_EQ(pulse.Read().stage(), v1::DENOISE);
  EXPECT_EQ(pulse.Read().steps(), 1);
  EXPECT_EQ(pulse.Read().step_seconds(), support::kFakeStepSeconds);
  EXPECT_EQ(pulse.counter(), 4);
  while (*(*run)->Advance()) {
  }
  pulse.RunEnds();
  run->reset();
  EXPECT_EQ(pulse.Read().stage(), v1::DECODE);
  EXPECT_EQ(pulse.counter(), 6);
  pulse.Enter(v1::ENCODE_MEDIA);
  EXPECT_EQ(pulse.Read().steps(), 0);
  EXPECT_EQ(pulse.Read().step_seconds(), 0);
  EXPECT_EQ(pulse.counter(), 6);
}

}  // namespace
}  // namespace kino::worker
