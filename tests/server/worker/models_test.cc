#include "server/worker/models.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/fake_engine.h"

namespace kino::worker {
namespace {

namespace fs = std::filesystem;

class ModelsTest : public ::testing::Test {
 protected:
  ModelsTest() {
    fs::remove_all(folder_);
    for (const char* name : {"a", "b"}) {
      fs::create_directories(folder_ + "/" + name + "/vae");
      std::ofstream(folder_ + "/" + name + "/model_index.json") << "{}";
      config::ModelConfig model;
      model.name = name;
      model.folder = folder_ + "/" + name;
      configured_.push_back(model);
    }
  }
  static std::string LoadedNames(const Models& models) {
    std::string names;
    for (const v1::WorkerModel& model : models.List()) {
      if (model.loaded()) names += model.name();
    }
    return names;
  }
  const std::string folder_ = testing::TempDir() + "/models";
  std::vector<config::ModelConfig> configured_;
  support::FakeEngine engine_;
};

TEST_F(ModelsTest, OneModelIsHeldAtATime) {
  Models models(engine_, configured_, {});
  EXPECT_TRUE(models.Load("a", nullptr)->loaded_now);
  EXPECT_FALSE(models.Load("a", nullptr)->loaded_now);
  EXPECT_EQ(LoadedNames(models), "a");
  EXPECT_TRUE(models.Load("b", nullptr)->loaded_now);
  EXPECT_EQ(LoadedNames(models), "b");
  EXPECT_EQ(engine_.device_memory_used_bytes(), 1000) << "the first model's memory is free";
}

TEST_F(ModelsTest, TheModelUnusedForLongestGoesFirst) {
  config::ModelConfig third = configured_[0];
  third.name = "c";
  configured_.push_back(third);
  Models models(engine_, configured_, {.max_loaded = 2});
  ASSERT_TRUE(models.Load("a", nullptr).ok());
  ASSERT_TRUE(models.Load("b", nullptr).ok());
  ASSERT_TRUE(models.Load("a", nullptr).ok());
  ASSERT_TRUE(models.Load("c", nullptr).ok());
  EXPECT_EQ(LoadedNames(models), "ac");
}

TEST_F(ModelsTest, EachLoadIsToldOnceAndTheLatestWhereNobodyAsksForLong) {
  Models models(engine_, configured_, {});
  ASSERT_TRUE(models.Load("a", nullptr).ok());
  ASSERT_TRUE(models.Load("a", nullptr).ok()) << "held already: no load";
  ASSERT_TRUE(models.Load("b", nullptr).ok());
  const std::vector<v1::ModelLoad> loads = models.TakeLoads();
  ASSERT_EQ(loads.size(), 2u);
  EXPECT_EQ(loads[0].model(), "a");
  EXPECT_EQ(loads[1].model(), "b");
  EXPECT_TRUE(models.TakeLoads().empty());
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(models.Unload("b").ok());
    ASSERT_TRUE(models.Load("b", nullptr).ok());
  }
  EXPECT_EQ(models.TakeLoads().size(), 16u);
}

TEST_F(ModelsTest, UnloadFreesAndIsIdempotent) {
  Models models(engine_, configured_, {});
  ASSERT_TRUE(models.Load("a", nullptr).ok());
  EXPECT_TRUE(models.Unload("a").ok());
  EXPECT_TRUE(models.Unload("a").ok());
  EXPECT_EQ(LoadedNames(models), "");
  EXPECT_EQ(engine_.device_memory_used_bytes(), 0);
}

TEST_F(ModelsTest, ACancelledLoadHoldsNothingAndTheNextOneLoads) {
  Models models(engine_, configured_, {});
  std::ofstream(folder_ + "/a/load_script") << "groups=5";
  engine::CancelToken cancel;
  cancel.CancelAtLook(3);
  engine::HostWorkCounter counter;
  EXPECT_TRUE(absl::IsCancelled(models.Load("a", &cancel, &counter).status()));
  EXPECT_EQ(counter.done(), 2u);
  EXPECT_EQ(LoadedNames(models), "");
  EXPECT_EQ(engine_.device_memory_used_bytes(), 0);
  EXPECT_TRUE(models.Load("a", nullptr, &counter)->loaded_now);
  EXPECT_EQ(counter.done(), 7u);
}

TEST_F(ModelsTest, UnknownAndBrokenModelsAreRefused) {
  fs::remove(folder_ + "/b/model_index.json");
  Models models(engine_, configured_, {});
  EXPECT_TRUE(absl::IsNotFound(models.Load("z", nullptr).status()));
  EXPECT_TRUE(absl::IsNotFound(models.Unload("z")));
  EXPECT_TRUE(absl::IsFailedPrecondition(models.Load("b", nullptr).status()));
  EXPECT_EQ(LoadedNames(models), "");
}

// An eight-byte length, a header of so many bytes, then tensor data.
void WriteSafetensors(const std::string& path, const std::string& header, const std::string& data) {
  std::ofstream file(path, std::ios::binary);
  const uint64_t size = header.size();
  for (int i = 0; i < 8; ++i) file.put(static_cast<char>(size >> (8 * i)));
  file << header << data;
}

TEST_F(ModelsTest, FingerprintFollowsConfigsAndTensorIndexOnly) {
  const std::string model = folder_ + "/a";
  WriteSafetensors(model + "/vae/m.safetensors", R"({"w":1})", "0000");
  const std::string first = ModelFingerprint(model, {});
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(ModelFingerprint(model, {}), first);
  WriteSafetensors(model + "/vae/m.safetensors", R"({"w":1})", "1111");
  EXPECT_EQ(ModelFingerprint(model, {}), first) << "tensor data is not read";
  WriteSafetensors(model + "/vae/m.safetensors", R"({"w":2})", "1111");
  const std::string second = ModelFingerprint(model, {});
  EXPECT_NE(second, first);
  std::ofstream(model + "/vae/config.json") << "{}";
  EXPECT_NE(ModelFingerprint(model, {}), second);
  EXPECT_EQ(ModelFingerprint(folder_ + "/absent", {}), "");
}

TEST_F(ModelsTest, FingerprintFollowsTheTransformerFile) {
  const std::string model = folder_ + "/a", file = folder_ + "/t.gguf";
  const std::string plain = ModelFingerprint(model, {});
  std::ofstream(file) << "GGUF one";
  const std::string first = ModelFingerprint(model, {{"transformer", file}});
  EXPECT_NE(first, plain);
  std::ofstream(file) << "GGUF two";
  EXPECT_NE(ModelFingerprint(model, {{"transformer", file}}), first);
  EXPECT_EQ(ModelFingerprint(model, {}).size(), 64u);
}

TEST_F(ModelsTest, PlansKeepWithinTheWorkersLimits) {
  Models models(engine_, configured_, {.max_device_memory = 1000, .max_host_memory = 0});
  engine::Plan plan;
  plan.offload = "leaf";
  plan.max_host_memory = 77;
  EXPECT_EQ(models.Limited(plan).max_device_memory, 1000);
  EXPECT_EQ(models.Limited(plan).max_host_memory, 77);
  EXPECT_EQ(models.Limited(plan).offload, "leaf");
  plan.max_device_memory = 500;
  EXPECT_EQ(models.Limited(plan).max_device_memory, 500);
  plan.max_device_memory = 5000;
  EXPECT_EQ(models.Limited(plan).max_device_memory, 1000);
}

TEST_F(ModelsTest, TheEngineIsGivenTheConfiguredPlan) {
  configured_[0].plan.quantize = "nf4";
  configured_[0].allow_lossy = true;
  configured_[0].original_files = {{"transformer", "/t.gguf"}};
  Models models(engine_, configured_, {.max_device_memory = 1000});
  ASSERT_TRUE(models.Load("a", nullptr).ok());
  const engine::ModelOptions& options = engine_.last_options();
  EXPECT_EQ(options.plan.quantize, "nf4");
  EXPECT_EQ(options.plan.max_device_memory, 1000);
  EXPECT_TRUE(options.allow_lossy);
  EXPECT_EQ(options.original_files, (engine::OriginalFiles{{"transformer", "/t.gguf"}}));
}

TEST_F(ModelsTest, AHeaderLengthPastTheFileIsHarmless) {
  std::ofstream(folder_ + "/a/m.safetensors", std::ios::binary)
      << std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8);
  EXPECT_EQ(ModelFingerprint(folder_ + "/a", {}).size(), 64u);
}

}  // namespace
}  // namespace kino::worker
