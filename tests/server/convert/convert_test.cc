#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/describe/families.h"
#include "google/rpc/error_details.pb.h"
#include "server/convert/job.h"
#include "server/convert/json.h"
#include "server/convert/request.h"
#include "server/convert/status.h"

namespace kino::convert {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

v1::GenerateRequest Parse(const std::string& text) {
  v1::GenerateRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

std::vector<std::string> ViolatedFields(const v1::GenerateRequest& request) {
  std::vector<std::string> fields;
  for (const auto& violation : ToEngine(request).violations) {
    EXPECT_FALSE(violation.description.empty());
    fields.push_back(violation.field);
  }
  return fields;
}

// Every field the engine knows, each with a value of its own.
const char kFull[] = R"pb(
  task: IMAGE_TO_VIDEO
  prompt: "a star"
  negative_prompt: "blur"
  height: 64
  width: 96
  num_frames: 17
  num_inference_steps: 25
  guidance_scale: 4.5
  seed: 18446744073709551615
  fps: 23.976
  conditions { kind: IMAGE frame_index: 8 strength: 0.5 asset_id: "a1" }
  conditions { kind: VIDEO frame_index: -1 strength: 1 num_frames: 9 data: "xyz" }
  conditions { kind: CONTROL_VIDEO frame_index: 0 strength: 0.25 path: "c.mkv" }
  output { codec: H264 quality: 90 }
  plan {
    vae_tiling {
      tile_sample_min_height: 1
      tile_sample_min_width: 2
      tile_sample_min_num_frames: 3
      tile_sample_stride_height: 4
      tile_sample_stride_width: 5
      tile_sample_stride_num_frames: 6
      framewise: true
    }
    offload: "block:2"
    mode: SMALLEST
    weights_home: "pageable"
    prefetch: 2
    storage_dtype: "float8_e4m3fn"
    quantize: "nf4,text_encoder=int8"
    quantize_skip: "proj_out"
    quantize_skip: "time_embed"
    llm_int8_threshold: 4.5
    chunk_feed_forward: 1024
    max_device_memory: 8000000000
    max_host_memory: 16000000000
  }
  ltx {
    frame_rate: 25
    guidance_rescale: 0.7
    decode_timestep: 0.05
    decode_noise_scale: 0.025
    max_sequence_length: 128
    sigmas: [ 1, 0.5 ]
    image_cond_noise_scale: 0.15
    denoise_strength: 0.9
    adain_factor: 0.3
    tone_map_compression_ratio: 0.6
    passes: 2
    second_pass_timesteps: [ 1000, 0 ]
    second_pass_steps: 2
    second_pass_strength: 0.9
    temporal_tile_size: 80
    temporal_overlap: 24
    temporal_overlap_cond_strength: 0.5
    skip_steps_sigma_threshold: 0.9
    decode_horizontal_tiles: 2
    decode_vertical_tiles: 3
    decode_overlap: 1
  })pb";

TEST(ConvertRequest, EveryEngineFieldSurvivesTheRoundTrip) {
  const v1::GenerateRequest request = Parse(kFull);
  const EngineRequest converted = ToEngine(request);
  EXPECT_THAT(converted.violations, IsEmpty());
  // Starting from the sources alone, all else must come from the engine's struct.
  v1::GenerateRequest back;
  for (const v1::Condition& condition : request.conditions()) {
    v1::Condition* out = back.add_conditions();
    *out = condition;
    out->clear_kind();
    out->clear_frame_index();
    out->clear_strength();
    out->clear_num_frames();
  }
  FromEngine(converted.request, &back);
  std::string difference;
  google::protobuf::util::MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(request, back)) << difference;
}

// A field added to the schema must be mapped, or be listed here as none of the engine's.
TEST(ConvertRequest, NoFieldOfTheSchemaIsForgotten) {
  const v1::GenerateRequest full = Parse(kFull);
  const std::vector<std::string> not_the_engines = {
      "model",         "preview",     "request_id", "labels",  "priority",
      "start_timeout", "run_timeout", "result_ttl", "tenant",  "traceparent",
      "hunyuan_video", "cogvideox",   "mochi",      "allegro", "knobs"};
  auto check = [&](const google::protobuf::Message& message,
                   const std::vector<std::string>& skipped) {
    const auto* descriptor = message.GetDescriptor();
    for (int i = 0; i < descriptor->field_count(); ++i) {
      const auto* field = descriptor->field(i);
      if (std::find(skipped.begin(), skipped.end(), field->name()) != skipped.end()) continue;
      const bool set = field->is_repeated() ? message.GetReflection()->FieldSize(message, field) > 0
                                            : message.GetReflection()->HasField(message, field);
      EXPECT_TRUE(set) << "kFull does not exercise " << field->full_name();
    }
  };
  check(full, not_the_engines);
  check(full.ltx(), {"timesteps"});
  check(full.plan(), {});
  check(full.plan().vae_tiling(), {});
  check(full.output(), {"lossless"});
}

TEST(ConvertRequest, AbsentStaysAbsent) {
  const EngineRequest converted = ToEngine(v1::GenerateRequest());
  EXPECT_THAT(converted.violations, IsEmpty());
  EXPECT_FALSE(converted.request.prompt || converted.request.height || converted.request.seed ||
               !converted.request.knobs.values.empty() || converted.request.plan.vae_tiling);
  // An empty tiling message is a request for tiling with the defaults.
  EXPECT_TRUE(ToEngine(Parse("plan { vae_tiling {} }")).request.plan.vae_tiling.has_value());
}

TEST(ConvertRequest, TilesInTimeAreOnOffOrLeftOpen) {
  for (const char* const tiling : {"framewise: true", "framewise: false", ""}) {
    const v1::GenerateRequest request = Parse(absl::StrCat("plan { vae_tiling { ", tiling, " } }"));
    const EngineRequest converted = ToEngine(request);
    v1::GenerateRequest back;
    FromEngine(converted.request, &back);
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(request.plan(), back.plan()))
        << tiling;
  }
}

TEST(ConvertRequest, FromEngineClearsWhatTheEngineDropped) {
  v1::GenerateRequest message = Parse(kFull);
  message.set_request_id("kept");
  FromEngine(engine::Request(), &message);
  EXPECT_FALSE(message.has_prompt() || message.has_seed() || message.has_ltx() ||
               message.plan().has_offload() || message.output().has_quality());
  EXPECT_EQ(message.conditions_size(), 0);
  EXPECT_EQ(message.request_id(), "kept");
}

TEST(ConvertRequest, TimestepsPassThrough) {
  const engine::Knobs knobs = ToEngine(Parse("ltx { timesteps: [1000, 500] }")).request.knobs;
  EXPECT_EQ(knobs.family, "ltx");
  EXPECT_THAT(std::get<std::vector<double>>(knobs.values.at("timesteps")), ElementsAre(1000, 500));
}

TEST(ConvertRequest, KnobsByNameAreThoseOfTheFamilysMessage) {
  const engine::Knobs by_field =
      ToEngine(Parse("ltx { frame_rate: 30 max_sequence_length: 64 sigmas: [ 1, 0.5 ] }"))
          .request.knobs;
  const engine::Knobs by_name = ToEngine(Parse(R"pb(
                                  knobs {
                                    key: "frame_rate"
                                    value { number: 30 }
                                  }
                                  knobs {
                                    key: "max_sequence_length"
                                    value { integer: 64 }
                                  }
                                  knobs {
                                    key: "sigmas"
                                    value { numbers { values: [ 1, 0.5 ] } }
                                  })pb"))
                                    .request.knobs;
  EXPECT_EQ(by_name.family, "");
  EXPECT_EQ(by_name.values, by_field.values);
}

TEST(ConvertRequest, KnobsGoBackToTheirFieldsAndOthersToTheirNames) {
  engine::Request request;
  request.knobs = {.family = "mochi",
                   .values = {{"max_sequence_length", int64_t{64}}, {"of_another_version", 0.5}}};
  v1::GenerateRequest message = Parse("ltx { frame_rate: 3 } knobs { key: 'x' value {} }");
  FromEngine(request, &message);
  EXPECT_EQ(message.mochi().max_sequence_length(), 64);
  ASSERT_EQ(message.knobs_size(), 1);
  EXPECT_EQ(message.knobs().at("of_another_version").number(), 0.5);
}

TEST(ConvertRequest, UnknownEnumValuesAreViolations) {
  v1::GenerateRequest request = Parse(R"pb(conditions { asset_id: "a" }
                                           conditions { kind: IMAGE asset_id: "b" })pb");
  request.set_task(static_cast<v1::Task>(77));
  request.set_priority(static_cast<v1::Priority>(78));
  request.mutable_output()->set_codec(static_cast<v1::VideoCodec>(79));
  request.mutable_conditions(1)->set_kind(static_cast<v1::Condition::Kind>(80));
  request.mutable_plan()->set_mode(static_cast<v1::PlanMode>(81));
  EXPECT_THAT(ViolatedFields(request),
              UnorderedElementsAre("task", "priority", "output.codec", "conditions[0].kind",
                                   "conditions[1].kind", "plan.mode"));
}

TEST(ConvertRequest, PlanModesSurviveTheRoundTrip) {
  const std::vector<std::pair<std::string, v1::PlanMode>> modes = {
      {"auto", v1::AUTO}, {"fastest", v1::FASTEST}, {"smallest", v1::SMALLEST}};
  // Every mode but the absent one.
  EXPECT_EQ(static_cast<int>(modes.size()), v1::PlanMode_descriptor()->value_count() - 1);
  for (const auto& [text, mode] : modes) {
    engine::Plan plan;
    plan.mode = text;
    EXPECT_EQ(FromEngine(plan).mode(), mode);
    EXPECT_EQ(ToEngine(FromEngine(plan)), plan);
  }
  EXPECT_EQ(ToEngine(v1::Plan()), engine::Plan());
  EXPECT_EQ(FromEngine(engine::Plan()).ByteSizeLong(), 0u);
}

TEST(ConvertJson, PlansAreWrittenAsInRequestFiles) {
  const auto request = FromJson(R"({"plan": {"mode": "AUTO", "offload": "leaf",
      "quantize": "text_encoder=nf4", "quantize_skip": ["proj_out"], "prefetch": 0,
      "max_device_memory": 6000000000, "vae_tiling": {}}})");
  ASSERT_TRUE(request.ok()) << request.status();
  engine::Plan expected;
  expected.mode = "auto";
  expected.offload = "leaf";
  expected.quantize = "text_encoder=nf4";
  expected.quantize_skip = {"proj_out"};
  expected.prefetch = 0;
  expected.max_device_memory = 6'000'000'000;
  expected.vae_tiling.emplace();
  EXPECT_EQ(ToEngine(request->plan()), expected);
  EXPECT_THAT(std::string(FromJson(R"({"plan": {"mode": "auto"}})").status().message()),
              HasSubstr("mode"));
}

TEST(ConvertRequest, NumbersThatAreNotFiniteAreViolations) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()}) {
    v1::GenerateRequest request = Parse("conditions { kind: IMAGE asset_id: 'a' }");
    request.set_guidance_scale(bad);
    request.set_fps(bad);
    request.mutable_conditions(0)->set_strength(bad);
    request.mutable_plan()->set_llm_int8_threshold(bad);
    // Every double of the family's message, found by reflection so that a new one cannot be missed.
    std::vector<std::string> expected = {"guidance_scale", "fps", "conditions[0].strength",
                                         "plan.llm_int8_threshold", "ltx.sigmas[0]"};
    v1::LtxOptions* ltx = request.mutable_ltx();
    const auto* descriptor = ltx->GetDescriptor();
    for (int i = 0; i < descriptor->field_count(); ++i) {
      const auto* field = descriptor->field(i);
      if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE ||
          field->is_repeated()) {
        continue;
      }
      ltx->GetReflection()->SetDouble(ltx, field, bad);
      expected.push_back("ltx." + field->name());
    }
    ltx->add_sigmas(bad);
    EXPECT_THAT(ViolatedFields(request), ::testing::UnorderedElementsAreArray(expected));
  }
}

TEST(ConvertRequest, TheFamiliesOfTheSchemaAreThoseThatRun) {
  std::vector<std::string> fields, families;
  const auto* oneof = v1::GenerateRequest::descriptor()->FindOneofByName("family");
  for (int i = 0; i < oneof->field_count(); ++i) fields.push_back(oneof->field(i)->name());
  for (const engine::FamilyDescriber& each : engine::FamilyDescribers())
    families.push_back(each.family);
  EXPECT_THAT(fields, ::testing::UnorderedElementsAreArray(families));
}

TEST(ConvertRequest, ContradictionsAreViolations) {
  EXPECT_THAT(
      ViolatedFields(Parse("ltx { sigmas: [1] } knobs { key: 'sigmas' value { number: 1 } }")),
      ElementsAre("knobs[sigmas]"));
  EXPECT_THAT(ViolatedFields(Parse("knobs { key: 'sigmas' value {} }")),
              ElementsAre("knobs[sigmas]"));
  EXPECT_THAT(ViolatedFields(Parse("output { lossless: true quality: 50 }")),
              ElementsAre("output.quality"));
  EXPECT_THAT(ViolatedFields(Parse("preview { enabled: true }")), ElementsAre("preview.enabled"));
  EXPECT_THAT(ViolatedFields(Parse("conditions { kind: IMAGE }")), ElementsAre("conditions[0]"));
}

TEST(ConvertStatus, CodeMessageAndDetailsSurviveTheRoundTrip) {
  absl::Status status = absl::ResourceExhaustedError("the queue is full");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(7);
  AddDetail(&status, retry);
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  AddDetail(&status, info);
  const google::rpc::Status wire = ToRpc(status);
  EXPECT_EQ(wire.code(), 8);
  ASSERT_EQ(wire.details_size(), 2);
  EXPECT_EQ(FromRpc(wire), status);
  google::rpc::RetryInfo back;
  ASSERT_TRUE(GetDetail(FromRpc(wire), &back));
  EXPECT_EQ(back.retry_delay().seconds(), 7);
  google::rpc::QuotaFailure absent;
  EXPECT_FALSE(GetDetail(status, &absent));
}

TEST(ConvertStatus, ForeignCodeBecomesUnknown) {
  google::rpc::Status wire;
  wire.set_code(99);
  wire.set_message("what");
  EXPECT_EQ(FromRpc(wire), absl::UnknownError("what"));
}

TEST(ConvertStatus, TheMessageIsUtf8WhateverAFileIsCalled) {
  const google::rpc::Status wire = ToRpc(absl::NotFoundError("no 'caf\xe9'"));
  EXPECT_EQ(wire.message(), "no 'caf\xef\xbf\xbd'");
  google::rpc::Status back;
  EXPECT_TRUE(back.ParseFromString(wire.SerializeAsString()));
}

TEST(ConvertStatus, InvalidRequestCarriesEveryViolation) {
  EXPECT_TRUE(InvalidRequest({}).ok());
  const absl::Status status = InvalidRequest({{"height", "too large"}, {"fps", "negative"}});
  EXPECT_EQ(status.message(), "height: too large; fps: negative");
  google::rpc::BadRequest details;
  ASSERT_TRUE(GetDetail(status, &details));
  ASSERT_EQ(details.field_violations_size(), 2);
  EXPECT_EQ(details.field_violations(1).field(), "fps");
}

TEST(ConvertJson, RequestSurvivesTheRoundTrip) {
  const v1::GenerateRequest request = Parse(kFull);
  for (const JsonLayout layout : {JsonLayout::kOneLine, JsonLayout::kIndented}) {
    const auto back = FromJson(ToJson(request, layout));
    EXPECT_TRUE(back.ok()) << back.status();
    if (!back.ok()) continue;
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(request, *back));
  }
}

TEST(ConvertJson, TakesSnakeCaseNamesAndBareEnums) {
  const auto request = FromJson(
      R"({"task":"TEXT_TO_VIDEO","num_frames":9,"seed":7,"plan":{"vae_tiling":{}},"ltx":{"sigmas":[1.0,0.5]}})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->task(), v1::TEXT_TO_VIDEO);
  EXPECT_EQ(request->num_frames(), 9);
  EXPECT_TRUE(request->plan().has_vae_tiling());
  EXPECT_EQ(request->ltx().sigmas_size(), 2);
}

TEST(ConvertJson, FaultsAreNamed) {
  const struct {
    const char* text;
    const char* expected;
  } cases[] = {
      {R"({"colour":"red"})", "colour"},
      {R"({"ltx":{"frame_rat":1}})", "frame_rat"},
      {R"({"task":"DANCE"})", "DANCE"},
      {R"({"height":"tall"})", "height"},
      {R"({"height":1.5})", "height"},
      {R"({"height":64)", "JSON"},
      {"", "JSON"},
      {"{\"prompt\":\"caf\xe9\"}", "byte 14 is no UTF-8"},
  };
  for (const auto& c : cases) {
    const auto request = FromJson(c.text);
    EXPECT_TRUE(absl::IsInvalidArgument(request.status())) << c.text;
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(c.expected)) << c.text;
  }
}

// Half of a pair is no character, and what cannot be sent must not be made.
TEST(ConvertJson, ALoneSurrogateMakesNoBrokenText) {
  for (const char* text : {R"({"prompt":"\ud800"})", R"({"prompt":"\udc00x"})",
                           R"({"labels":{"a":"\ud83d"}})", R"({"prompt":"\ud800\u0041"})"}) {
    const auto request = FromJson(text);
    v1::GenerateRequest back;
    EXPECT_TRUE(!request.ok() || back.ParseFromString(request->SerializeAsString())) << text;
  }
  EXPECT_EQ(FromJson(R"({"prompt":"\ud83e\udd8a"})")->prompt(), "\xf0\x9f\xa6\x8a");
}

TEST(ConvertJob, EveryStageHasItsName) {
  const std::pair<engine::Stage, v1::Stage> cases[] = {
      {engine::Stage::kLoad, v1::LOAD},
      {engine::Stage::kEncodeText, v1::ENCODE_TEXT},
      {engine::Stage::kEncodeMedia, v1::ENCODE_MEDIA},
      {engine::Stage::kDenoise, v1::DENOISE},
      {engine::Stage::kUpscale, v1::UPSCALING},
      {engine::Stage::kDecode, v1::DECODE},
      {engine::Stage::kMux, v1::MUX},
  };
  EXPECT_EQ(std::size(cases), static_cast<size_t>(v1::Stage_ARRAYSIZE - 1));
  for (const auto& [from, to] : cases) EXPECT_EQ(FromEngine(from), to);
}

TEST(ConvertJob, ProgressCarriesItsAttemptAndEta) {
  engine::RunProgress progress;
  progress.pass = 2;
  progress.total_passes = 3;
  progress.stage = engine::Stage::kDenoise;
  progress.step = 4;
  progress.total_steps = 5;
  progress.fraction = 0.75;
  EXPECT_FALSE(FromEngine(progress, 6).has_eta());
  progress.eta_seconds = 1.5;
  const v1::Progress out = FromEngine(progress, 6);
  EXPECT_EQ(out.attempt(), 6);
  EXPECT_EQ(out.pass(), 2);
  EXPECT_EQ(out.total_passes(), 3);
  EXPECT_EQ(out.stage(), v1::DENOISE);
  EXPECT_EQ(out.step(), 4);
  EXPECT_EQ(out.total_steps(), 5);
  EXPECT_EQ(out.fraction(), 0.75);
  EXPECT_EQ(out.eta().seconds(), 1);
  EXPECT_EQ(out.eta().nanos(), 500000000);
}

TEST(ConvertJob, ArtifactDescribesTheClip) {
  engine::RunResult result;
  result.width = 96;
  result.height = 64;
  result.num_frames = 17;
  result.fps = 8;
  const v1::Artifact artifact = ToArtifact(result, 1234, "ab");
  EXPECT_EQ(artifact.content_type(), "video/mp4");
  EXPECT_EQ(artifact.size_bytes(), 1234);
  EXPECT_EQ(artifact.sha256(), "ab");
  EXPECT_EQ(artifact.width(), 96);
  EXPECT_EQ(artifact.height(), 64);
  EXPECT_EQ(artifact.num_frames(), 17);
  EXPECT_EQ(artifact.fps(), 8);
}

}  // namespace
}  // namespace kino::convert
