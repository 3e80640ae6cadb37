#include "server/cli/commands.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "server/cli/output_file.h"
#include "server/cli/print.h"
#include "server/cli/request_flags.h"
#include "server/cli/upload.h"
#include "server/command_line/input.h"
#include "server/command_line/output_target.h"
#include "server/convert/status.h"
#include "server/convert/trace_context.h"

namespace kino::cli {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:50051";
constexpr int kDownloadTries = 8;
constexpr int kMaxPage = 1000;
constexpr int kJobsShown = 100;

std::string FromEnvironment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != 0 ? value : otherwise;
}

using command_line::AddOption;

// A command whose one argument is an id or a name.
struct OneArgument {
  CommonFlags common;
  std::string argument;
  CLI::App app;

  OneArgument(const std::string& command, const std::string& name, const std::string& help,
              const std::string& text)
      : app(text, absl::StrCat("kino ", command)) {
    common.Register(app);
    AddOption(app, name, &argument, "", help)->required();
  }
};

// Parses the command's id, makes one call of the video service with it and shows the job it answers
// with.
template <typename Request>
ExitCode CallAndShowJob(OneArgument& command, const std::vector<std::string>& arguments,
                        grpc::Status (v1::VideoService::Stub::*method)(grpc::ClientContext*,
                                                                       const Request&, v1::Job*)) {
  if (auto code = Parse(command.app, arguments)) return *code;
  Client client(command.common.server);
  Request request;
  request.set_id(command.argument);
  v1::Job job;
  auto context = client.UnaryContext();
  const absl::Status status = ToStatus((client.videos().*method)(context.get(), request, &job));
  if (!status.ok()) return ReportError(status, command.common.errors());
  command.common.is_json ? PrintJson(job) : PrintJob(job);
  return kOk;
}

ExitCode ShowModelResult(const CommonFlags& common, const absl::Status& status,
                         const v1::Model& model) {
  if (!status.ok()) return ReportError(status, common.errors());
  common.is_json ? PrintJson(model) : PrintModelRow(model);
  return kOk;
}

// Whole or from output->offset() on, however often the connection breaks.
absl::Status DownloadInto(Client& client, const std::string& id, OutputFile* output) {
  absl::Status status;
  for (int tries = 0; tries < kDownloadTries; ++tries) {
    if (tries > 0) absl::SleepFor(absl::Milliseconds(100) * (1 << std::min(tries, 5)));
    auto context = client.StreamContext();
    v1::DownloadVideoRequest request;
    request.set_id(id);
    request.set_offset(output->offset());
    auto reader = client.videos().DownloadVideo(context.get(), request);
    v1::DownloadVideoResponse piece;
    while (reader->Read(&piece)) {
      tries = 0;
      const absl::Status written = output->Write(0, piece.offset(), piece.data());
      if (written.ok()) continue;
      context->TryCancel();
      reader->Finish();
      // A local fault; UNAVAILABLE would mean the server.
      return absl::DataLossError(std::string(written.message()));
    }
    status = ToStatus(reader->Finish());
    if (!absl::IsUnavailable(status) && !absl::IsCancelled(status)) return status;
  }
  return status;
}

}  // namespace

CommonFlags::CommonFlags() {
  server.address = FromEnvironment("KINO_SERVER", kDefaultServer);
  server.token = FromEnvironment("KINO_TOKEN", "");
  // As other tools hand it on; one that is not well-formed is none.
  server.traceparent = FromEnvironment("TRACEPARENT", "");
  if (!convert::IsTraceparent(server.traceparent)) server.traceparent.clear();
  server.tls.server_name = FromEnvironment("KINO_TLS_SERVER_NAME", "");
  tls_ca_ = FromEnvironment("KINO_TLS_CA", "");
  tls_cert_ = FromEnvironment("KINO_TLS_CERT", "");
  tls_key_ = FromEnvironment("KINO_TLS_KEY", "");
}

void CommonFlags::ReadTlsFiles() {
  const auto read = [](const char* flag, const std::string& path, std::string& out) {
    if (path.empty()) return;
    absl::StatusOr<std::string> text = command_line::ReadInputText(path);
    if (!text.ok()) throw CLI::ValidationError(flag, std::string(text.status().message()));
    out = *std::move(text);
  };
  TlsOptions& tls = server.tls;
  read("--tls-ca", tls_ca_, tls.ca);
  read("--tls-cert", tls_cert_, tls.certificate);
  read("--tls-key", tls_key_, tls.key);
  if (tls.certificate.empty() != tls.key.empty())
    throw CLI::ValidationError("--tls-cert and --tls-key", "expected both, or neither");
  tls.is_on = tls.is_on || !tls.ca.empty() || !tls.certificate.empty() || !tls.server_name.empty();
}

void CommonFlags::Register(CLI::App& app, const std::string& footer) {
  command_line::SetUp(app, footer);
  AddOption(app, "--server", &server.address, "ADDR",
            "host:port. Default: $KINO_SERVER, else 127.0.0.1:50051.");
  AddOption(app, "--token", &server.token, "TOKEN", "Default: $KINO_TOKEN.");
  app.add_flag("--tls", server.tls.is_on,
               "TLS, with whom this system trusts. The next four turn it on, too.");
  AddOption(app, "--tls-ca", &tls_ca_, "FILE",
            "Who signed the server's certificate, PEM. Default: $KINO_TLS_CA.");
  AddOption(app, "--tls-cert", &tls_cert_, "FILE",
            "This client's own certificate, PEM. Default: $KINO_TLS_CERT.");
  AddOption(app, "--tls-key", &tls_key_, "FILE", "Its key, PEM. Default: $KINO_TLS_KEY.");
  AddOption(app, "--tls-server-name", &server.tls.server_name, "NAME",
            "The name in the server's certificate, where it is another than the address. Default: "
            "$KINO_TLS_SERVER_NAME.");
  app.final_callback([this] { ReadTlsFiles(); });
  app.add_flag("--json", is_json, "One JSON object a line.");
  app.add_flag("--quiet", is_quiet, "No progress.");
}

std::optional<ExitCode> Parse(CLI::App& app, const std::vector<std::string>& arguments) {
  const absl::StatusOr<std::string> text = command_line::Parse(app, arguments);
  if (!text.ok()) return UsageError(std::string(text.status().message()), WantsJson(arguments));
  if (text->empty()) return std::nullopt;
  std::cout << *text;
  return kOk;
}

bool WantsJson(const std::vector<std::string>& arguments) {
  const auto end = std::find(arguments.begin(), arguments.end(), "--");
  return std::find(arguments.begin(), end, "--json") != end;
}

ExitCode UsageError(const std::string& message, bool is_json) {
  if (!is_json) return ExitCode(command_line::UsageError("kino", message));
  absl::Status status = absl::InvalidArgumentError(message);
  google::rpc::ErrorInfo info;
  info.set_reason("USAGE");
  convert::AddDetail(&status, info);
  ReportError(status, {.server = "", .is_json = true, .job_id = "", .asset_id = ""});
  return kUsage;
}

std::optional<ExitCode> CheckOutput(const CommonFlags& common, const std::string& out) {
  if (out.empty()) return std::nullopt;
  const absl::Status status = command_line::IsOutputStream(out).status();
  return status.ok() ? std::nullopt : std::optional(ReportError(status, common.errors()));
}

ExitCode JobsCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  std::vector<std::string> states, labels;
  std::string model;
  std::optional<int> given_limit;
  bool is_all = false;
  CLI::App app("Lists jobs, newest first.", "kino jobs");
  common.Register(app);
  AddOption(app, "--state", &states, "STATE", "queued, running, succeeded, ...; repeatable.");
  AddOption(app, "--model", &model, "NAME", "Only this model's.");
  AddOption(app, "--label", &labels, "KEY=VALUE", "Only jobs with it; repeatable.");
  AddOption(app, "--limit", &given_limit, "N", "At most so many. Default: 100.");
  app.add_flag("--all", is_all, "As many as there are.");
  if (auto code = Parse(app, arguments)) return *code;
  if (given_limit && *given_limit < 1) {
    return UsageError("--limit: expected 1 or more", common.is_json);
  }
  if (given_limit && is_all) {
    return UsageError("--limit and --all: expected one of them", common.is_json);
  }
  int64_t limit = is_all ? std::numeric_limits<int64_t>::max() : given_limit.value_or(kJobsShown);
  v1::ListJobsRequest request;
  for (const std::string& text : states) {
    v1::JobState state;
    if (!v1::JobState_Parse(absl::AsciiStrToUpper(text), &state)) {
      return UsageError(absl::StrCat("--state: unknown state '", text, "'"), common.is_json);
    }
    request.add_states(state);
  }
  for (const std::string& label : labels) {
    const absl::Status added = AddLabel(label, request.mutable_labels());
    if (!added.ok()) return UsageError(std::string(added.message()), common.is_json);
  }
  request.set_model(model);
  Client client(common.server);
  if (!common.is_json) PrintJobHeader();
  while (limit > 0) {
    request.set_page_size(static_cast<int>(std::min<int64_t>(limit, kMaxPage)));
    v1::ListJobsResponse page;
    auto context = client.UnaryContext();
    const absl::Status status = ToStatus(client.videos().ListJobs(context.get(), request, &page));
    if (!status.ok()) return ReportError(status, common.errors());
    for (const v1::Job& job : page.jobs()) {
      common.is_json ? PrintJson(job) : PrintJobRow(job);
    }
    // Without a reader the rest is of no use.
    if (page.next_page_token().empty() || !std::cout.good()) break;
    request.set_page_token(page.next_page_token());
    limit -= page.jobs_size();
    if (limit <= 0 && !given_limit && !common.is_quiet) {
      std::cerr << "kino: there are more jobs than these " << kJobsShown
                << "; --limit N shows so many, --all all of them\n";
    }
  }
  return kOk;
}

ExitCode ShowCommand(const std::vector<std::string>& arguments) {
  OneArgument command("show", "ID", "The job.", "Shows one job.");
  return CallAndShowJob(command, arguments, &v1::VideoService::Stub::GetJob);
}

ExitCode CancelCommand(const std::vector<std::string>& arguments) {
  OneArgument command("cancel", "ID", "The job.",
                      "Cancels a job: at once when queued, within a step when running.");
  return CallAndShowJob(command, arguments, &v1::VideoService::Stub::CancelJob);
}

ExitCode RequeueCommand(const std::vector<std::string>& arguments) {
  OneArgument command("requeue", "ID", "The job.",
                      "Lets a QUARANTINED, FAILED or EXPIRED job run again.");
  return CallAndShowJob(command, arguments, &v1::VideoService::Stub::RequeueJob);
}

ExitCode DeleteCommand(const std::vector<std::string>& arguments) {
  OneArgument command("delete", "ID", "The job.", "Removes an ended job and its video.");
  if (auto code = Parse(command.app, arguments)) return *code;
  Client client(command.common.server);
  v1::DeleteJobRequest request;
  request.set_id(command.argument);
  v1::DeleteJobResponse response;
  auto context = client.UnaryContext();
  const absl::Status status =
      ToStatus(client.videos().DeleteJob(context.get(), request, &response));
  if (!status.ok()) return ReportError(status, command.common.errors());
  if (command.common.is_json) PrintJson(response);
  return kOk;
}

ExitCode DownloadCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  std::string id, out;
  CLI::App app("Fetches a finished job's video.", "kino download");
  common.Register(app);
  AddOption(app, "ID", &id, "", "The job.")->required();
  AddOption(app, "--out", &out, "FILE", "Default: ID.mp4. - is standard output.");
  if (auto code = Parse(app, arguments)) return *code;
  if (auto code = CheckOutput(common, out)) return *code;
  Client client(common.server);
  v1::GetJobRequest request;
  request.set_id(id);
  v1::Job job;
  auto context = client.UnaryContext();
  absl::Status status = ToStatus(client.videos().GetJob(context.get(), request, &job));
  if (!status.ok()) return ReportError(status, common.errors());
  if (!job.has_artifact()) {
    return ReportError(absl::FailedPreconditionError(absl::StrCat(
                           "the job is ", v1::JobState_Name(job.state()), " and has no video")),
                       common.errors());
  }
  if (out.empty()) out = absl::StrCat(job.id(), ".mp4");
  auto output = OutputFile::Create(out);
  if (!output.ok()) return ReportError(output.status(), common.errors());
  status = DownloadInto(client, job.id(), output->get());
  if (status.ok()) {
    status = (*output)->Finish(job.artifact().size_bytes(), job.artifact().sha256());
  }
  if (!status.ok()) return ReportError(status, common.errors());
  std::ostream& words = (*output)->is_stdout() ? std::cerr : std::cout;
  common.is_json ? PrintJson(job.artifact(), words) : (void)(words << out << "\n");
  return kOk;
}

ExitCode ModelsCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  std::string name;
  CLI::App app("Lists the models, or shows one with its tasks, defaults, knobs and limits.",
               "kino models");
  common.Register(app);
  AddOption(app, "NAME", &name, "", "Only this model.");
  if (auto code = Parse(app, arguments)) return *code;
  Client client(common.server);
  auto context = client.UnaryContext();
  if (!name.empty()) {
    v1::GetModelRequest request;
    request.set_name(name);
    v1::Model model;
    const absl::Status status = ToStatus(client.models().GetModel(context.get(), request, &model));
    if (!status.ok()) return ReportError(status, common.errors());
    common.is_json ? PrintJson(model) : PrintModel(model);
    return kOk;
  }
  v1::ListModelsResponse models;
  const absl::Status status =
      ToStatus(client.models().ListModels(context.get(), v1::ListModelsRequest(), &models));
  if (!status.ok()) return ReportError(status, common.errors());
  if (!common.is_json) PrintModelHeader();
  for (const v1::Model& model : models.models()) {
    common.is_json ? PrintJson(model) : PrintModelRow(model);
  }
  return kOk;
}

ExitCode LoadCommand(const std::vector<std::string>& arguments) {
  OneArgument command("load", "MODEL", "Its name.",
                      "Makes a worker hold the model now; returns when it does.");
  if (auto code = Parse(command.app, arguments)) return *code;
  Client client(command.common.server);
  v1::LoadModelRequest request;
  request.set_name(command.argument);
  v1::Model model;
  auto context = client.UnaryContext();
  const absl::Status status = ToStatus(client.models().LoadModel(context.get(), request, &model));
  return ShowModelResult(command.common, status, model);
}

ExitCode UnloadCommand(const std::vector<std::string>& arguments) {
  OneArgument command("unload", "MODEL", "Its name.", "Frees the model's weights on every worker.");
  if (auto code = Parse(command.app, arguments)) return *code;
  Client client(command.common.server);
  v1::UnloadModelRequest request;
  request.set_name(command.argument);
  v1::Model model;
  auto context = client.UnaryContext();
  const absl::Status status = ToStatus(client.models().UnloadModel(context.get(), request, &model));
  return ShowModelResult(command.common, status, model);
}

ExitCode UploadCommand(const std::vector<std::string>& arguments) {
  OneArgument command("upload", "FILE", "What to upload; - is standard input.",
                      "Uploads an image or video and prints the asset's id.");
  if (auto code = Parse(command.app, arguments)) return *code;
  Client client(command.common.server);
  auto asset = UploadFile(client, command.argument);
  if (!asset.ok()) return ReportError(asset.status(), command.common.errors());
  command.common.is_json ? PrintJson(*asset) : (void)(std::cout << asset->id() << "\n");
  ErrorStyle style = command.common.errors();
  style.asset_id = asset->id();
  return CheckOutputWritten(kOk, style);
}

ExitCode HealthCommand(const std::vector<std::string>& arguments) {
  // A check that hangs is a bad one.
  constexpr auto kDeadline = std::chrono::seconds(5);
  CommonFlags common;
  std::string service;
  CLI::App app("Asks whether the server serves: exit code 0, else 1. Needs no token.",
               "kino health");
  common.Register(app);
  AddOption(app, "SERVICE", &service, "",
            "model/NAME, worker/NAME, device/cuda:0 or store. Default: the server as a whole.");
  if (auto code = Parse(app, arguments)) return *code;
  Client client(common.server);
  auto context = client.UnaryContext();
  context->set_deadline(std::chrono::system_clock::now() + kDeadline);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const absl::Status status = ToStatus(client.health().Check(context.get(), request, &response));
  if (!status.ok()) return ReportError(status, common.errors());
  using grpc::health::v1::HealthCheckResponse;
  if (common.is_json) {
    PrintJson(response);
  } else if (!common.is_quiet) {
    std::cout << HealthCheckResponse::ServingStatus_Name(response.status()) << "\n";
  }
  return response.status() == HealthCheckResponse::SERVING ? kOk : kJobFailed;
}

}  // namespace kino::cli
