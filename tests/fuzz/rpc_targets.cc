// What clients send beside a video's request: every RPC's message through the check that stands
// before its handler, the authorization header, and bytes of the job store on their way to clients.
#include <cmath>
#include <iterator>
#include <memory>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "google/rpc/error_details.pb.h"
#include "kino/v1/models.pb.h"
#include "kino/v1/stored.pb.h"
#include "kino/v1/video.pb.h"
#include "server/command_line/utf8.h"
#include "server/convert/status.h"
#include "server/digest/sha256.h"
#include "server/frontend/auth/credentials.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/job_view.h"
#include "server/frontend/rpc/request_check.h"
#include "tests/fuzz/framed.h"
#include "tests/fuzz/fuzz_target.h"

namespace kino::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// What gRPC lets through in a trailer, with room for what else stands there.
constexpr size_t kMaxErrorBytes = 7000;

const Message* const kRequests[] = {
    &v1::GenerateRequest::default_instance(),    &v1::SubmitJobRequest::default_instance(),
    &v1::GetJobRequest::default_instance(),      &v1::ListJobsRequest::default_instance(),
    &v1::CancelJobRequest::default_instance(),   &v1::CancelJobsRequest::default_instance(),
    &v1::RequeueJobRequest::default_instance(),  &v1::DeleteJobRequest::default_instance(),
    &v1::WatchJobRequest::default_instance(),    &v1::DownloadVideoRequest::default_instance(),
    &v1::UploadAssetRequest::default_instance(), &v1::ListModelsRequest::default_instance(),
    &v1::GetModelRequest::default_instance(),    &v1::LoadModelRequest::default_instance(),
    &v1::UnloadModelRequest::default_instance(), &v1::GetPlansRequest::default_instance(),
};

void RequireKnown(const Message& message);

// One value: index < 0 for a field that is not repeated.
void RequireKnownValue(const Message& message, const FieldDescriptor* field, int index) {
  const google::protobuf::Reflection& look = *message.GetReflection();
  const auto is_listed = index >= 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return RequireKnown(is_listed ? look.GetRepeatedMessage(message, field, index)
                                    : look.GetMessage(message, field));
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int value = is_listed ? look.GetRepeatedEnumValue(message, field, index)
                                  : look.GetEnumValue(message, field);
      return Require(field->enum_type()->FindValueByNumber(value) != nullptr,
                     "an accepted request has no unknown enum value");
    }
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Require(std::isfinite(is_listed ? look.GetRepeatedDouble(message, field, index)
                                             : look.GetDouble(message, field)),
                     "an accepted request has finite numbers");
    default:
      return;
  }
}

// Says again, in the plainest way, what the check promises.
void RequireKnown(const Message& message) {
  const google::protobuf::Reflection& look = *message.GetReflection();
  Require(look.GetUnknownFields(message).empty(), "an accepted request has no unknown field");
  std::vector<const FieldDescriptor*> fields;
  look.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (!field->is_repeated()) RequireKnownValue(message, field, -1);
    for (int i = 0; field->is_repeated() && i < look.FieldSize(message, field); ++i)
      RequireKnownValue(message, field, i);
  }
}

// What every refusal keeps to.
void RequireTellable(const absl::Status& refusal) {
  Require(absl::IsInvalidArgument(refusal), "a request that is refused is the client's fault");
  const google::rpc::Status wire = frontend::ToWireStatus(refusal);
  Require(wire.ByteSizeLong() <= kMaxErrorBytes, "a refusal fits into a trailer");
  google::rpc::BadRequest fields;
  Require(convert::GetDetail(refusal, &fields) && fields.field_violations_size() > 0,
          "a refusal names fields");
  for (const auto& violation : fields.field_violations()) {
    Require(
        command_line::IsUtf8(violation.field()) && command_line::IsUtf8(violation.description()),
        "a refusal is text");
  }
}

absl::Status CheckGenerate(const v1::GenerateRequest& request) {
  std::vector<engine::FieldViolation> violations;
  if (frontend::CheckKnown(request, "", violations))
    frontend::CheckServerFields(request, config::LimitsConfig(), violations);
  return convert::InvalidRequest(frontend::WithoutRepeats(std::move(violations)));
}

// The video's request in it, which has a check of its own; null: none.
const v1::GenerateRequest* GenerateIn(const Message& message) {
  if (const auto* submit = dynamic_cast<const v1::SubmitJobRequest*>(&message))
    return &submit->request();
  if (const auto* plans = dynamic_cast<const v1::GetPlansRequest*>(&message))
    return &plans->request();
  return dynamic_cast<const v1::GenerateRequest*>(&message);
}

// The first byte says which message the others are.
bool RunRpcRequest(std::string_view bytes) {
  [[maybe_unused]] static const auto log = google::protobuf::SetLogHandler(nullptr);
  if (bytes.empty()) return false;
  const size_t kind = static_cast<unsigned char>(bytes[0]) % std::size(kRequests);
  const std::unique_ptr<Message> message(kRequests[kind]->New());
  if (!message->ParseFromArray(bytes.data() + 1, static_cast<int>(bytes.size() - 1))) return false;
  absl::Status known = absl::OkStatus();
  const v1::GenerateRequest* const generate = GenerateIn(*message);
  if (generate != message.get()) known = frontend::CheckEnvelope(*message);
  if (known.ok() && generate != nullptr) known = CheckGenerate(*generate);
  if (!known.ok()) {
    RequireTellable(known);
    return false;
  }
  RequireKnown(*message);
  return true;
}

std::string RpcRequestSeed(const Message& message) {
  for (size_t kind = 0; kind < std::size(kRequests); ++kind) {
    if (kRequests[kind]->GetDescriptor() == message.GetDescriptor())
      return absl::StrCat(std::string(1, static_cast<char>(kind)), message.SerializeAsString());
  }
  Require(false, "a seed's message is an RPC's");
  return "";
}

std::vector<std::string> RpcRequestSeeds() {
  std::vector<std::string> seeds;
  for (const Message* const empty : kRequests) seeds.push_back(RpcRequestSeed(*empty));
  v1::SubmitJobRequest submit;
  submit.mutable_request()->set_prompt("p");
  submit.mutable_request()->set_request_id("once");
  submit.mutable_request()->mutable_labels()->insert({"user", "7"});
  submit.mutable_request()->mutable_run_timeout()->set_seconds(60);
  v1::Condition& condition = *submit.mutable_request()->add_conditions();
  condition.set_kind(v1::Condition::IMAGE);
  condition.set_data("picture");
  seeds.push_back(RpcRequestSeed(submit));
  seeds.push_back(RpcRequestSeed(submit.request()));
  v1::ListJobsRequest list;
  list.set_page_size(10);
  list.set_page_token("5-0123456789abcdef");
  list.add_states(v1::RUNNING);
  list.set_model("demo");
  list.mutable_labels()->insert({"user", "7"});
  seeds.push_back(RpcRequestSeed(list));
  v1::WatchJobRequest watch;
  watch.set_id("01m8nmkaeadj0d8kxaj83kd8pm");
  watch.set_after_state_number(2);
  watch.set_attempt(1);
  watch.set_offset(1000);
  seeds.push_back(RpcRequestSeed(watch));
  v1::UploadAssetRequest upload;
  upload.mutable_header()->set_size_bytes(7);
  upload.mutable_header()->set_sha256(std::string(64, 'a'));
  seeds.push_back(RpcRequestSeed(upload));
  return seeds;
}

bool RunAuthorization(std::string_view bytes) {
  static const auto* const table = [] {
    config::AuthConfig auth;
    auth.tokens.push_back({.tenant = "a", .sha256 = digest::Sha256Of("alpha")});
    auth.tokens.push_back({.tenant = "b", .sha256 = digest::Sha256Of("beta")});
    return new frontend::Credentials(*frontend::Credentials::Load(auth));
  }();
  const absl::StatusOr<frontend::Identity> caller =
      table->Identify({.authorization = std::string(bytes), .peer = "", .certificate_names = {}});
  const std::string_view expected = bytes == "Bearer alpha"  ? "a"
                                    : bytes == "Bearer beta" ? "b"
                                                             : "";
  Require(caller.ok() == !expected.empty(), "who brings a token is let in, and nobody else");
  Require(!caller.ok() || caller->tenant == expected, "a token is one tenant's");
  Require(caller.ok() || absl::IsUnauthenticated(caller.status()), "a refusal is UNAUTHENTICATED");
  return caller.ok();
}

std::vector<std::string> AuthorizationSeeds() { return {"Bearer alpha", "Bearer beta"}; }

// Framed stats, request and evidence of a job.
bool RunStoredJob(std::string_view bytes) {
  [[maybe_unused]] static const auto log = google::protobuf::SetLogHandler(nullptr);
  std::vector<std::string> parts(3);
  for (std::string& part : parts) part = TakeFrame(bytes);
  scheduler::Job job;
  job.id = "the-job";
  job.state = scheduler::JobState::kFailed;
  job.state_number = 3;
  job.stats = parts[0];
  job.request = parts[1];
  job.error = absl::InternalError("it broke");
  job.attempts.push_back({.number = 1,
                          .error = absl::InternalError("it broke"),
                          .cause = scheduler::FailureCause::kCrash,
                          .evidence = parts[2]});
  const v1::Job told = frontend::ToProto(job, absl::Hours(1));
  Require(told.id() == job.id && told.state() == v1::FAILED && told.state_number() == 3,
          "what a job is stands in the store's columns");
  Require(told.attempts_size() == 1 && told.attempts(0).number() == 1 &&
              told.attempts(0).cause() == "CRASH",
          "the attempts that were made are told, each with its end");
  Require(!told.has_artifact() && !told.has_eta() && told.waiting_reason().empty(),
          "stored bytes say nothing but what ran");
  Require(told.error().message() == "it broke", "a job's error is told");
  v1::Job read;
  Require(read.ParseFromString(told.SerializeAsString()), "a job that is told can be read");
  v1::RunStats stats;
  v1::GenerateRequest request;
  v1::CrashEvidence evidence;
  return stats.ParseFromString(parts[0]) && request.ParseFromString(parts[1]) &&
         evidence.ParseFromString(parts[2]);
}

std::vector<std::string> StoredJobSeeds() {
  v1::RunStats stats;
  stats.add_stages()->set_stage(v1::DENOISE);
  stats.mutable_stages(0)->set_seconds(1.5);
  stats.mutable_plan()->set_offload("none");
  v1::GenerateRequest request;
  request.set_prompt("p");
  request.set_height(64);
  v1::CrashEvidence evidence;
  evidence.set_stage(v1::DENOISE);
  evidence.set_step(3);
  evidence.set_signal(9);
  v1::Job whole_job;
  whole_job.add_attempts()->set_cause("HANG");
  whole_job.mutable_artifact()->set_size_bytes(1);
  whole_job.mutable_eta()->set_seconds(1);
  return {absl::StrCat(Frame(stats.SerializeAsString()), Frame(request.SerializeAsString()),
                       Frame(evidence.SerializeAsString())),
          absl::StrCat(Frame(""), Frame(request.SerializeAsString()), Frame("")),
          absl::StrCat(Frame(whole_job.SerializeAsString()), Frame(""), Frame(""))};
}

}  // namespace

std::vector<FuzzTarget> RpcTargets() {
  return {{"rpc_request", RunRpcRequest, RpcRequestSeeds, 20000},
          {"authorization", RunAuthorization, AuthorizationSeeds, 20000},
          {"stored_job", RunStoredJob, StoredJobSeeds, 20000}};
}

}  // namespace kino::fuzz
