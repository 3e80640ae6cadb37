// A client's GenerateRequest, in its JSON and its binary form, all the way to the effective request
// of the demo model.
#include <google/protobuf/stubs/logging.h>

#include "engine/describe/describe.h"
#include "server/convert/json.h"
#include "server/convert/request.h"
#include "server/convert/status.h"
#include "tests/fuzz/fuzz_target.h"

namespace kino::fuzz {
namespace {

std::string Effective(const engine::Request& request) {
  v1::GenerateRequest message;
  convert::FromEngine(request, &message);
  return message.SerializeAsString();
}

// What the frontend does with a request before it is stored.
void Resolve(const v1::GenerateRequest& message) {
  static const auto* const model = new engine::ModelDescription(
      *engine::DescribeModel(std::string(KINO_SOURCE_DIR) + "/models/demo"));
  const convert::EngineRequest asked = convert::ToEngine(message);
  const engine::ResolvedRequest resolved = engine::ResolveRequest(*model, asked.request, 1);
  std::vector<engine::FieldViolation> violations = asked.violations;
  violations.insert(violations.end(), resolved.violations.begin(), resolved.violations.end());
  Require(convert::InvalidRequest(violations).ok() == violations.empty(),
          "violations make a request invalid");
  if (!violations.empty()) return;

  v1::GenerateRequest stored = message;
  convert::FromEngine(resolved.request, &stored);
  const convert::EngineRequest read = convert::ToEngine(stored);
  Require(read.violations.empty(), "a stored request can be read");
  Require(Effective(read.request) == Effective(resolved.request), "a stored request is the same");
  const engine::ResolvedRequest again = engine::ResolveRequest(*model, read.request, 2);
  Require(again.violations.empty(), "an effective request is valid");
  Require(Effective(again.request) == Effective(resolved.request),
          "resolving an effective request changes nothing");
}

bool RunRequestJson(std::string_view bytes) {
  const auto message = convert::FromJson(std::string(bytes));
  if (!message.ok()) return false;
  Resolve(*message);
  const auto again = convert::FromJson(convert::ToJson(*message, convert::JsonLayout::kOneLine));
  Require(again.ok() && again->SerializeAsString() == message->SerializeAsString(),
          "JSON survives the way there and back");
  return true;
}

bool RunRequestProto(std::string_view bytes) {
  // protobuf writes a line for each string that is no UTF-8.
  [[maybe_unused]] static const auto log = google::protobuf::SetLogHandler(nullptr);
  v1::GenerateRequest message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
  Resolve(message);
  return true;
}

std::vector<std::string> JsonSeeds() {
  return {
      "{}",
      R"({"model":"demo","prompt":"a red star","seed":"7","height":64,"width":64,"num_frames":17,)"
      R"("fps":8,"num_inference_steps":25,"guidance_scale":4,"ltx":{"frame_rate":8}})",
      R"({"task":"IMAGE_TO_VIDEO","prompt":"p","negative_prompt":"n","conditions":[{"kind":"IMAGE",)"
      R"("frame_index":0,"strength":1,"data":"aGVsbG8="}],"output":{"quality":50},)"
      R"("plan":{"offload":"block:2","vae_tiling":{"framewise":true,"tile_sample_min_height":64}}})",
      R"({"prompt":"p","num_inference_steps":2,"ltx":{"sigmas":[1.0,0.5],"guidance_rescale":0.3,)"
      R"("max_sequence_length":64,"decode_timestep":0.05}})",
  };
}

std::vector<std::string> ProtoSeeds() {
  std::vector<std::string> seeds;
  for (const std::string& json : JsonSeeds()) {
    const auto message = convert::FromJson(json);
    Require(message.ok(), "the JSON seeds are requests");
    seeds.push_back(message->SerializeAsString());
  }
  return seeds;
}

}  // namespace

std::vector<FuzzTarget> RequestTargets() {
  return {{"request_json", RunRequestJson, JsonSeeds, 2000},
          {"request_proto", RunRequestProto, ProtoSeeds, 2000}};
}

}  // namespace kino::fuzz
