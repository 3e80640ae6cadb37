#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/describe/plan.h"
#include "engine/engine.h"

namespace kino::engine {
namespace {

// What a question leaves open is filled in before the network is traced.
TEST(ProfilesTest, AQuestionIsMadeAnEffectiveRequest) {
  const auto model = DescribeModel(std::string(KINO_SOURCE_DIR) + "/models/demo");
  ASSERT_TRUE(model.ok()) << model.status();
  Request open;
  open.prompt = "a red star";
  open.height = open.width = 64;
  open.num_frames = 17;
  const ResolvedRequest resolved = ResolveRequest(*model, open, 0);
  ASSERT_TRUE(resolved.violations.empty());
  const auto peaks = [&](const Request& request) {
    const auto profile = ProfilesOf(*model, DType::kF32, /*on_gpu=*/true)->Profile(request, {{}});
    EXPECT_TRUE(profile.ok()) << profile.status();
    std::vector<int64_t> bytes;
    if (!profile.ok()) return bytes;
    for (const PhaseNeed& phase : *profile->Phases({})) bytes.push_back(phase.device_activations);
    return bytes;
  };
  EXPECT_EQ(peaks(open), peaks(resolved.request));
  open.knobs.values["frame_rate"] = -1.0;
  EXPECT_EQ(ProfilesOf(*model, DType::kF32, true)->Profile(open, {{}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kino::engine
