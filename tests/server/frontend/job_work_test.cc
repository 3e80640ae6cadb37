// Which requests take the same time for a step.
#include "server/frontend/rpc/job_work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace kino::frontend {
namespace {

v1::GenerateRequest Request() {
  v1::GenerateRequest request;
  request.set_model("ltx");
  request.set_task(v1::IMAGE_TO_VIDEO);
  request.set_prompt("a cat");
  request.set_height(512);
  request.set_width(704);
  request.set_num_frames(97);
  request.set_num_inference_steps(40);
  request.set_guidance_scale(3);
  request.set_seed(7);
  request.mutable_plan()->set_offload("block:1");
  v1::Condition& condition = *request.add_conditions();
  condition.set_kind(v1::Condition::IMAGE);
  condition.set_asset_id("asset");
  condition.set_strength(0.5);
  (*request.mutable_knobs())["frame_rate"].set_number(25);
  return request;
}

using Change = std::function<void(v1::GenerateRequest&)>;

// Of the request with each of the changes by itself, in their order.
std::vector<std::string> ShapesAfter(const std::vector<Change>& changes) {
  std::vector<std::string> shapes;
  for (const Change& change : changes) {
    v1::GenerateRequest request = Request();
    change(request);
    shapes.push_back(WorkOf(request, 0).shape);
  }
  return shapes;
}

TEST(JobWorkTest, StepsAndOperationsAreTold) {
  const scheduler::JobWork work = WorkOf(Request(), 1e15);
  EXPECT_EQ(work.steps, 40);
  EXPECT_EQ(work.flops, 1e15);
  EXPECT_EQ(work.shape.size(), 32u);
  EXPECT_EQ(WorkOf(Request(), 0).shape, work.shape);
}

TEST(JobWorkTest, AnUpscalingIsOneStep) {
  v1::GenerateRequest request = Request();
  request.set_task(v1::UPSCALE);
  request.clear_num_inference_steps();
  EXPECT_EQ(WorkOf(request, 0).steps, 1);
}

TEST(JobWorkTest, ShapeIsBlindToWhatCostsNothing) {
  const std::string shape = WorkOf(Request(), 0).shape;
  const std::vector<Change> changes = {
      [](auto& r) { r.set_model("another"); },
      [](auto& r) { r.set_prompt("a dog"); },
      [](auto& r) { r.set_negative_prompt("blurry"); },
      [](auto& r) { r.set_num_inference_steps(8); },
      [](auto& r) { r.set_guidance_scale(9); },
      [](auto& r) { r.set_seed(8); },
      [](auto& r) { r.set_fps(30); },
      [](auto& r) { r.mutable_output()->set_quality(9); },
      [](auto& r) { r.mutable_preview()->set_enabled(true); },
      [](auto& r) { r.set_request_id("id"); },
      [](auto& r) {
        r.mutable_labels()->insert({"a", "b"});
      },
      [](auto& r) { r.set_priority(v1::HIGH); },
      [](auto& r) { r.set_tenant("t"); },
      [](auto& r) { r.mutable_start_timeout()->set_seconds(1); },
      [](auto& r) { r.mutable_run_timeout()->set_seconds(1); },
      [](auto& r) { r.mutable_result_ttl()->set_seconds(1); },
      [](auto& r) { r.mutable_conditions(0)->set_asset_id("another"); },
      [](auto& r) { r.mutable_conditions(0)->set_strength(1); },
  };
  EXPECT_THAT(ShapesAfter(changes), ::testing::Each(shape));
}

TEST(JobWorkTest, ShapeTellsApartWhatTakesAnotherTime) {
  const std::string shape = WorkOf(Request(), 0).shape;
  const std::vector<Change> changes = {
      [](auto& r) { r.set_task(v1::TEXT_TO_VIDEO); },
      [](auto& r) { r.set_height(256); },
      [](auto& r) { r.set_width(256); },
      [](auto& r) { r.set_num_frames(33); },
      [](auto& r) { r.set_guidance_scale(1); },
      [](auto& r) { r.mutable_plan()->set_offload("model"); },
      [](auto& r) { r.mutable_plan()->set_quantize("nf4"); },
      [](auto& r) { r.mutable_conditions(0)->set_kind(v1::Condition::VIDEO); },
      [](auto& r) { r.mutable_conditions(0)->set_frame_index(8); },
      [](auto& r) { r.clear_conditions(); },
      [](auto& r) { r.mutable_ltx()->set_max_sequence_length(256); },
  };
  EXPECT_THAT(ShapesAfter(changes), ::testing::Each(::testing::Ne(shape)));
}

}  // namespace
}  // namespace kino::frontend
