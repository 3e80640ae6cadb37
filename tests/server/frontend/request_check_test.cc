// Bounds of requests, and what an error may carry.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/rpc/error_details.pb.h"
#include "kino/v1/models.pb.h"
#include "kino/v1/video.pb.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/request_check.h"

namespace kino::frontend {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// What CheckKnown leaves to checks with limits of their own.
const std::set<std::string> kCheckedElsewhere = {
    "kino.v1.GenerateRequest.prompt", "kino.v1.GenerateRequest.negative_prompt",
    "kino.v1.GenerateRequest.request_id", "kino.v1.Condition.data",
    "kino.v1.UploadAssetRequest.data"};

// Calls `visit` with each message type below `message`, in a message that is empty otherwise.
template <typename Visit>
void ForEachPlace(Message& root, Message& message, const Visit& visit) {
  visit(message);
  const Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* const field = type.field(i);
    if (field->message_type() == nullptr || field->is_map()) continue;
    if (absl::StrContains(field->message_type()->full_name(), "google.protobuf")) continue;
    Message* const below = field->is_repeated()
                               ? message.GetReflection()->AddMessage(&message, field)
                               : message.GetReflection()->MutableMessage(&message, field);
    ForEachPlace(root, *below, visit);
    message.GetReflection()->ClearField(&message, field);
  }
}

void AddElement(Message& message, const FieldDescriptor& field) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      reflection.AddMessage(&message, &field);
      break;
    case FieldDescriptor::CPPTYPE_STRING:
      reflection.AddString(&message, &field, "x");
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      reflection.AddDouble(&message, &field, 0.5);
      break;
    case FieldDescriptor::CPPTYPE_ENUM:
      reflection.AddEnumValue(&message, &field, 1);
      break;
    default:
      FAIL() << "a repeated field of a kind that this test does not fill: " << field.full_name();
  }
}

void ExpectBounds(Message& root) {
  int seen = 0;
  ForEachPlace(root, root, [&](Message& message) {
    const Descriptor& type = *message.GetDescriptor();
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor& field = *type.field(i);
      SCOPED_TRACE(field.full_name());
      const bool is_text = field.cpp_type() == FieldDescriptor::CPPTYPE_STRING;
      if (kCheckedElsewhere.contains(field.full_name())) continue;
      if (field.is_repeated()) {
        for (int element = 0; element <= 1000; ++element) AddElement(message, field);
      } else if (is_text) {
        message.GetReflection()->SetString(&message, &field, std::string(1025, 'x'));
      } else {
        continue;
      }
      ++seen;
      std::vector<engine::FieldViolation> violations;
      EXPECT_FALSE(CheckKnown(root, "", violations));
      EXPECT_FALSE(violations.empty());
      message.GetReflection()->ClearField(&message, &field);
    }
  });
  EXPECT_GT(seen, 0);
}

TEST(RequestCheckTest, EveryListAndTextOfEveryRequestHasABound) {
  v1::GenerateRequest generate;
  ExpectBounds(generate);
  v1::ListJobsRequest list;
  ExpectBounds(list);
  v1::CancelJobsRequest cancel;
  ExpectBounds(cancel);
  v1::GetJobRequest get;
  ExpectBounds(get);
  v1::WatchJobRequest watch;
  ExpectBounds(watch);
  v1::DownloadVideoRequest download;
  ExpectBounds(download);
  v1::UploadAssetRequest upload;
  ExpectBounds(upload);
  v1::LoadModelRequest load;
  ExpectBounds(load);
}

TEST(RequestCheckTest, BoundsAreInclusive) {
  v1::GenerateRequest request;
  for (int i = 0; i < 64; ++i) {
    request.mutable_plan()->add_quantize_skip(absl::StrCat(i, std::string(250, 'x')));
  }
  std::vector<engine::FieldViolation> violations;
  EXPECT_TRUE(CheckKnown(request, "", violations));
  request.mutable_plan()->set_quantize_skip(63, std::string(256, 'x'));
  EXPECT_TRUE(CheckKnown(request, "", violations));
  EXPECT_TRUE(violations.empty());
  request.mutable_plan()->set_quantize_skip(63, std::string(257, 'x'));
  EXPECT_FALSE(CheckKnown(request, "", violations));
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "plan.quantize_skip[63]");
  request.mutable_plan()->set_quantize_skip(63, "x");
  request.mutable_plan()->add_quantize_skip("x");
  violations.clear();
  EXPECT_FALSE(CheckKnown(request, "", violations));
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "plan.quantize_skip");
}

TEST(RequestCheckTest, LargestRequestIsFarBelowWhatIsStored) {
  v1::GenerateRequest request;
  request.set_prompt(std::string(8192, 'x'));
  request.set_negative_prompt(std::string(8192, 'x'));
  for (int i = 0; i < 64; ++i) {
    request.mutable_plan()->add_quantize_skip(std::string(256, 'x'));
    auto& knob = (*request.mutable_knobs())[absl::StrCat(i, std::string(120, 'x'))];
    for (int j = 0; j < 1000; ++j) knob.mutable_numbers()->add_values(0.5);
  }
  for (int i = 0; i < 16; ++i) {
    (*request.mutable_labels())[absl::StrCat(i, std::string(120, 'x'))] = std::string(128, 'x');
    request.add_conditions()->set_asset_id(std::string(128, 'x'));
  }
  std::vector<engine::FieldViolation> violations;
  EXPECT_TRUE(CheckKnown(request, "", violations));
  EXPECT_LT(static_cast<int64_t>(request.ByteSizeLong()), kMaxStoredRequestBytes);
}

TEST(ErrorsTest, TextIsCutBetweenCharacters) {
  EXPECT_EQ(CutText("abcdef", 6), "abcdef");
  EXPECT_EQ(CutText("abcdefg", 6), "abc...");
  EXPECT_EQ(CutText("aéébbbb", 6), "aé...");
  EXPECT_EQ(CutText("éééé", 6), "é...");
  EXPECT_EQ(CutText("日本語日本語", 8), "日...");
  EXPECT_EQ(CutText("abcdef", 2), "");
  EXPECT_EQ(CutText("", 0), "");
}

TEST(ErrorsTest, ErrorInHeadersFitsIntoWhatClientsTake) {
  std::vector<engine::FieldViolation> violations;
  for (int i = 0; i < 10'000; ++i) {
    violations.push_back(
        {absl::StrCat("field", i, std::string(1000, 'x')), "日本語日本語日本語日本語"});
  }
  for (const absl::Status& status :
       {convert::InvalidRequest(violations), convert::InvalidRequest(WithoutRepeats(violations)),
        absl::ResourceExhaustedError(std::string(100'000, 'x')),
        WithErrorInfo(absl::ResourceExhaustedError(std::string(100'000, 'x')),
                      "UPLOAD_TOO_LARGE")}) {
    const google::rpc::Status wire = ToShortWireStatus(status);
    // The message once with three bytes for one, the details in base64; clients take 8192.
    EXPECT_LT(3 * wire.message().size() + wire.ByteSizeLong() * 4 / 3, 7'500u);
    const absl::Status back = convert::FromRpc(wire);
    EXPECT_EQ(back.code(), status.code());
    google::rpc::ErrorInfo info;
    EXPECT_TRUE(convert::GetDetail(back, &info));
    google::rpc::BadRequest bad;
    EXPECT_EQ(convert::GetDetail(back, &bad) && bad.field_violations_size() > 0,
              absl::IsInvalidArgument(status));
  }
  // What lies in a job is told whole.
  EXPECT_EQ(ToWireStatus(absl::InternalError(std::string(100'000, 'x'))).message().size(),
            100'000u);
}

TEST(ErrorsTest, MetQuotasAreNamedAndBusyServersSayWhenToComeBack) {
  const absl::Status busy = convert::FromRpc(ToShortWireStatus(ServerBusy("calls wait")));
  EXPECT_TRUE(absl::IsResourceExhausted(busy));
  google::rpc::QuotaFailure quota;
  ASSERT_TRUE(convert::GetDetail(busy, &quota));
  EXPECT_EQ(quota.violations(0).subject(), "calls");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(convert::GetDetail(busy, &retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_FALSE(convert::GetDetail(
      convert::FromRpc(ToShortWireStatus(absl::UnavailableError("later"))), &quota));
}

}  // namespace
}  // namespace kino::frontend
