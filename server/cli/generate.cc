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

  void Register(flags::FlagSet* flags, const char* out_help) {
    flags->Add("out", &out, "FILE", out_help);
    flags->Add("reattach-seconds", &reattach_seconds, "N",
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

// The request, its files uploaded; an exit code when that failed.
std::optional<ExitCode> PrepareRequest(const CommonFlags& common, const RequestFlags& flags,
                                       Client& client, v1::GenerateRequest* request) {
  RequestInput input;
  if (auto code = flags.Build(common, client, &input)) return code;
  if (absl::Status status = UploadConditions(client, &input); !status.ok()) {
    return ReportError(status, common.server.address);
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
  flags::FlagSet flags(
      "kino generate PROMPT [--out FILE] [flags]",
      "Makes a video and writes it as it comes; prints the file's name. Ctrl-C asks whether to\n"
      "cancel the job (without a terminal it goes on).");
  watch_flags.Register(&flags, "Where the video goes. Default: ID.mp4.");
  request_flags.Register(&flags);
  common.Register(&flags);
  const auto print_help = [&] { request_flags.PrintHelp(common, flags); };
  if (auto code = common.Parse(flags, arguments, print_help)) return *code;
  Client client(common.server);
  v1::GenerateRequest request;
  if (auto code = PrepareRequest(common, request_flags, client, &request)) return *code;
  return JobWatch(client, watch_flags.Options(common)).Generate(request);
}

ExitCode SubmitCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  RequestFlags request_flags;
  flags::FlagSet flags("kino submit PROMPT [flags]", "Queues a job and prints its id.");
  request_flags.Register(&flags);
  common.Register(&flags);
  const auto print_help = [&] { request_flags.PrintHelp(common, flags); };
  if (auto code = common.Parse(flags, arguments, print_help)) return *code;
  Client client(common.server);
  v1::SubmitJobRequest submit;
  if (auto code = PrepareRequest(common, request_flags, client, submit.mutable_request())) {
    return *code;
  }
  v1::Job job;
  auto context = client.UnaryContext();
  const absl::Status status = ToStatus(client.videos().SubmitJob(context.get(), submit, &job));
  if (!status.ok()) return ReportError(status, common.server.address);
  common.is_json ? PrintJson(job) : (void)(std::cout << job.id() << "\n");
  return kOk;
}

ExitCode WatchCommand(const std::vector<std::string>& arguments) {
  CommonFlags common;
  WatchFlags watch_flags;
  std::vector<std::string> ids;
  flags::FlagSet flags("kino watch ID [--out FILE] [flags]", "Follows a job to its end.");
  watch_flags.Register(&flags, "Writes the video too. Default: states and progress only.");
  common.Register(&flags);
  flags.AddPositional(&ids, 1);
  if (auto code = common.Parse(flags, arguments)) return *code;
  if (ids.empty()) return UsageError("an argument is missing");
  WatchOptions options = watch_flags.Options(common);
  options.wants_video = !options.out.empty();
  Client client(common.server);
  return JobWatch(client, options).Watch(ids[0]);
}

}  // namespace kino::cli
