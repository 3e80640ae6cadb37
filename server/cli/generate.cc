#include "server/cli/generate.h"

#include <unistd.h>

#include <iostream>
#include <random>

#include "absl/strings/str_format.h"
#include "server/cli/commands.h"
#include "server/cli/print.h"
#include "server/cli/request_flags.h"
#include "server/cli/upload.h"
#include "server/cli/watch.h"

namespace kino::cli {
namespace {

// So that a submission that is sent again makes no second job.
std::string DrawRequestId() {
  std::random_device random;
  return absl::StrFormat("cli-%08x%08x%08x%08x", random(), random(), random(), random());
}

struct WatchFlags {
  std::string out;
  int reattach_seconds = 60;

  void Register(CLI::App& app, const char* out_help) {
    using command_line::AddOption;
    AddOption(app, "--out", &out, "FILE", out_help);
    AddOption(app, "--reattach-seconds", &reattach_seconds, "N",
              "How long a lost connection is tried again. Default: 60.");
  }
  WatchOptions Options(const CommonFlags& common) const {
    WatchOptions options;
    options.out = out;
    options.is_json = common.is_json;
    options.is_quiet = common.is_quiet;
    options.is_interactive = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
    options.reattach = absl::Seconds(reattach_seconds);
    return options;
  }
};

// The request of the command line, its files uploaded; an exit code when that failed.
std::optional<ExitCode> PrepareRequest(const CommonFlags& common, RequestInput input,
                                       Client& client, v1::GenerateRequest* request) {
  if (absl::Status status = UploadConditions(client, &input); !status.ok()) {
    return ReportError(status, common.errors());
  }
  *request = std::move(input.request);
  if (request->request_id().empty()) request->set_request_id(DrawRequestId());
  return std::nullopt;
}

}  // namespace

ExitCode GenerateCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  RequestFlags request_flags;
  WatchFlags watch_flags;
  CLI::App app(
      "Makes a video and writes it as it comes; prints the file's name. Ctrl-C asks whether to "
      "cancel the job (without a terminal it goes on).",
      "kino generate");
  common.Register(app);
  watch_flags.Register(app, "Where the video goes; - is standard output. Default: ID.mp4.");
  request_flags.Register(app, RequestFlags::Positional::kPrompt);
  RequestInput input;
  if (auto code = request_flags.Parse(app, common, arguments, &input)) return *code;
  if (auto code = CheckOutput(common, watch_flags.out)) return *code;
  Client client(common.server);
  v1::GenerateRequest request;
  if (auto code = PrepareRequest(common, std::move(input), client, &request)) return *code;
  return JobWatch(client, watch_flags.Options(common)).Generate(request);
}

ExitCode SubmitCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  RequestFlags request_flags;
  CLI::App app("Queues a job and prints its id.", "kino submit");
  common.Register(app);
  request_flags.Register(app, RequestFlags::Positional::kPrompt);
  RequestInput input;
  if (auto code = request_flags.Parse(app, common, arguments, &input)) return *code;
  Client client(common.server);
  v1::SubmitJobRequest submit;
  if (auto code = PrepareRequest(common, std::move(input), client, submit.mutable_request())) {
    return *code;
  }
  v1::Job job;
  auto context = client.UnaryContext();
  const absl::Status status = ToStatus(client.videos().SubmitJob(context.get(), submit, &job));
  if (!status.ok()) return ReportError(status, common.errors());
  common.is_json ? PrintJson(job) : (void)(std::cout << job.id() << "\n");
  ErrorStyle style = common.errors();
  style.job_id = job.id();
  return CheckOutputWritten(kOk, style);
}

ExitCode WatchCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  WatchFlags watch_flags;
  std::string id;
  CLI::App app("Follows a job to its end.", "kino watch");
  common.Register(app);
  command_line::AddOption(app, "ID", &id, "", "The job.")->required();
  watch_flags.Register(
      app, "Writes the video too; - is standard output. Default: states and progress only.");
  if (auto code = Parse(app, arguments)) return *code;
  if (auto code = CheckOutput(common, watch_flags.out)) return *code;
  WatchOptions options = watch_flags.Options(common);
  options.wants_video = !options.out.empty();
  Client client(common.server);
  return JobWatch(client, options).Watch(id);
}

}  // namespace kino::cli
