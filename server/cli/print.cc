#include "server/cli/print.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/rpc/error_details.pb.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/utf8.h"
#include "server/convert/json.h"
#include "server/convert/status.h"

namespace kino::cli {
namespace {

constexpr int kBarCells = 24;
constexpr size_t kPromptCells = 40;
constexpr size_t kErrorCells = 8192;
constexpr char kModelRow[] = "%-24s  %-10s  %-28s  %-14s  %s\n";

std::string TimeText(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixSeconds(time.seconds()),
                          absl::LocalTimeZone());
}

std::string EtaText(const google::protobuf::Duration& eta) {
  const int64_t seconds = eta.seconds();
  return seconds < 60 ? absl::StrCat(seconds, " s")
                      : absl::StrFormat("%d:%02d min", seconds / 60, seconds % 60);
}

// A stranger's text on a terminal: control characters would move the cursor.
std::string Printable(const std::string& text, size_t limit) {
  std::string out;
  for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  return out.size() > limit ? command_line::TruncateUtf8(out, limit - 3) + "..." : out;
}

absl::Duration Between(const google::protobuf::Timestamp& from,
                       const google::protobuf::Timestamp& to) {
  return absl::Seconds(to.seconds() - from.seconds()) +
         absl::Nanoseconds(to.nanos() - from.nanos());
}

using Words = std::pair<const char*, const char*>;  // a reason, and what it says

// One of a newer server is told as it is.
std::string WordsOf(const std::string& reason, absl::Span<const Words> known) {
  for (const auto& [name, text] : known) {
    if (reason == name) return text;
  }
  return absl::StrReplaceAll(absl::AsciiStrToLower(reason), {{"_", " "}});
}

// Why an attempt ended, by its error's reason.
std::string CauseText(const std::string& reason) {
  static constexpr Words kCauses[] = {
      {"CLIENT", "the request cannot be run"},
      {"OUT_OF_MEMORY", "out of memory"},
      {"MODEL", "the model cannot be used"},
      {"INTERNAL", "the run failed"},
      {"INTERRUPTED", "interrupted by the server, does not count"},
      {"CRASH", "its worker ended"},
      {"HANG", "its worker stood still and was ended"},
      {"LEASE_LOST", "its worker was not heard of any more"},
      {"CANCELLED", "cancelled"},
      {"RUN_TIMEOUT", "took longer than it may"},
  };
  return WordsOf(reason, kCauses);
}

// Where a worker's death found the run: "signal 9, in denoise, step 3, on cuda:0 with 12.3 GiB in
// use".
std::string EvidenceText(const v1::CrashEvidence& evidence) {
  std::vector<std::string> parts;
  if (evidence.signal() != 0) parts.push_back(absl::StrCat("signal ", evidence.signal()));
  if (evidence.exit_code() != 0) parts.push_back(absl::StrCat("exit code ", evidence.exit_code()));
  if (evidence.stage() != v1::STAGE_UNSPECIFIED)
    parts.push_back(absl::StrCat("in ", absl::AsciiStrToLower(v1::Stage_Name(evidence.stage()))));
  if (evidence.step() != 0) parts.push_back(absl::StrCat("step ", evidence.step()));
  if (!evidence.device().empty()) {
    parts.push_back(absl::StrCat("on ", evidence.device()));
    if (evidence.device_memory_bytes() != 0) {
      absl::StrAppend(&parts.back(), " with ",
                      command_line::FormatByteSize(evidence.device_memory_bytes()), " in use");
    }
  }
  return Printable(absl::StrJoin(parts, ", "), kErrorCells);
}

std::string Describe(const v1::Attempt& attempt) {
  std::string text = absl::StrCat(attempt.number(), " on ", attempt.worker());
  if (attempt.has_start_time() && attempt.has_end_time()) {
    absl::StrAppendFormat(&text, ", %.1f s",
                          absl::ToDoubleSeconds(Between(attempt.start_time(), attempt.end_time())));
  }
  if (!attempt.has_error()) return text;
  google::rpc::ErrorInfo info;
  convert::GetDetail(convert::FromRpc(attempt.error()), &info);
  const std::string cause = CauseText(info.reason());
  for (const std::string& part : {cause, Printable(attempt.error().message(), kErrorCells)}) {
    if (!part.empty()) absl::StrAppend(&text, ": ", part);
  }
  return text;
}

// Of Job.waiting_reason.
std::string WaitingText(const std::string& reason) {
  static constexpr Words kReasons[] = {
      {"NO_WORKER", "no worker that is up serves its model"},
      {"DEVICE_OUT", "jobs keep crashing on its workers' device, which is being checked"},
      {"DISK_FULL", "the server's disk is full"},
      {"TENANT_DISK_FULL", "your videos and uploads take all the room that you may have"},
      {"SERVER_SHORT", "the server is short of something for a moment"},
      {"BACK_OFF", "pauses after an attempt that failed"},
      {"NO_MEMORY", "the workers that are up have too little memory for it"},
      {"AHEAD", ""},  // the number says it
      {"WORKERS_BUSY", "its workers are all working"},
  };
  return WordsOf(reason, kReasons);
}

void PrintLine(const char* name, const std::string& value) {
  if (!value.empty()) std::cout << absl::StrFormat("%-12s %s\n", name, value);
}

std::string WorkersText(const v1::Model& model) {
  std::vector<std::string> workers;
  for (const v1::ModelOnWorker& worker : model.workers())
    workers.push_back(absl::StrCat(worker.worker(), worker.loaded() ? " (loaded)" : ""));
  return absl::StrJoin(workers, ", ");
}

std::string LimitsText(const v1::Limits& limits) {
  return absl::StrFormat(
      "sides of %d to %d pixels by %d, 1 to %d frames%s, %d pixels in all%s", limits.min_size(),
      limits.max_size(), limits.size_multiple(), limits.max_frames(),
      limits.frames_multiple() > 1 ? absl::StrFormat(" (k*%d+1)", limits.frames_multiple()) : "",
      limits.max_pixels(),
      limits.max_steps() > 0 ? absl::StrFormat(", 1 to %d steps", limits.max_steps()) : "");
}

// Of a NativeShape or a GenerateRequest.
template <typename Shape>
std::string ShapeText(const Shape& shape) {
  return absl::StrFormat("%dx%d, %d frames at %g/s", shape.width(), shape.height(),
                         shape.num_frames(), shape.fps());
}

// "frame_rate = 25 (1 to 1000): Of the video ..."
std::string KnobText(const v1::KnobInfo& knob) {
  std::string text = knob.name();
  const v1::KnobValue& value = knob.default_();
  if (value.has_number()) absl::StrAppend(&text, " = ", value.number());
  if (value.has_integer()) absl::StrAppend(&text, " = ", value.integer());
  if (value.has_numbers())
    absl::StrAppend(&text, " = ", absl::StrJoin(value.numbers().values(), ", "));
  absl::StrAppendFormat(&text, " (%g to %g): ", knob.min(), knob.max());
  return Printable(text + knob.help(), kErrorCells);
}

void PrintReceipt(const v1::Receipt& receipt) {
  if (!receipt.worker().empty()) {
    PrintLine("made by", Printable(absl::StrFormat("%s %s on %s (%s)", receipt.worker(),
                                                   receipt.worker_version(), receipt.device(),
                                                   receipt.device_name()),
                                   kErrorCells));
  }
  PrintLine("model hash", receipt.model_sha256());
  PrintLine("weights hash", receipt.weights_sha256());
}

}  // namespace

void PrintJson(const google::protobuf::Message& message, std::ostream& out) {
  out << convert::ToJson(message, convert::JsonLayout::kOneLine) << std::endl;
}

void PrintJobHeader() {
  std::cout << absl::StrFormat("%-36s  %-11s  %-20s  %-19s  %s\n", "ID", "STATE", "MODEL",
                               "CREATED", "PROMPT");
}

void PrintJobRow(const v1::Job& job) {
  std::cout << absl::StrFormat("%-36s  %-11s  %-20s  %-19s  %s\n", job.id(),
                               v1::JobState_Name(job.state()), job.request().model(),
                               TimeText(job.create_time()),
                               Printable(job.request().prompt(), kPromptCells));
}

void PrintJob(const v1::Job& job) {
  PrintLine("id", job.id());
  PrintLine("state", v1::JobState_Name(job.state()));
  if (job.has_queue_position()) PrintLine("ahead", absl::StrCat(job.queue_position()));
  PrintLine("waits", WaitingText(job.waiting_reason()));
  if (job.has_start_eta()) PrintLine("starts in", EtaText(job.start_eta()));
  if (job.has_eta()) PrintLine("ends in", EtaText(job.eta()));
  PrintLine("model", job.request().model());
  PrintLine("task", v1::Task_Name(job.request().task()));
  PrintLine("prompt", Printable(job.request().prompt(), 8192));
  if (job.request().has_seed()) PrintLine("seed", absl::StrCat(job.request().seed()));
  PrintLine("created", TimeText(job.create_time()));
  if (job.has_start_time()) PrintLine("started", TimeText(job.start_time()));
  if (job.has_end_time()) PrintLine("ended", TimeText(job.end_time()));
  for (const v1::Attempt& attempt : job.attempts()) {
    PrintLine("attempt", Describe(attempt));
    if (attempt.has_evidence()) PrintLine("  evidence", EvidenceText(attempt.evidence()));
  }
  if (job.has_plan() && job.plan().ByteSizeLong() > 0) {
    PrintLine("plan", convert::ToJson(job.plan(), convert::JsonLayout::kOneLine));
  }
  for (const v1::StageStats& stage : job.stages()) {
    PrintLine("stage",
              absl::StrFormat("%-13s %8.3f s  device %s  host %s",
                              absl::AsciiStrToLower(v1::Stage_Name(stage.stage())), stage.seconds(),
                              command_line::FormatByteSize(stage.peak_device_bytes()),
                              command_line::FormatByteSize(stage.peak_host_bytes())));
  }
  if (job.has_receipt()) PrintReceipt(job.receipt());
  if (job.has_error()) PrintLine("error", Printable(job.error().message(), kErrorCells));
  if (job.has_artifact()) {
    const v1::Artifact& artifact = job.artifact();
    PrintLine("video", absl::StrFormat("%dx%d, %d frames at %g/s, %s, sha256 %s", artifact.width(),
                                       artifact.height(), artifact.num_frames(), artifact.fps(),
                                       command_line::FormatByteSize(artifact.size_bytes()),
                                       artifact.sha256()));
    if (artifact.has_expire_time()) PrintLine("kept until", TimeText(artifact.expire_time()));
  }
  PrintLine("server", job.server_version());
}

void PrintModelHeader() {
  std::cout << absl::StrFormat(kModelRow, "NAME", "FAMILY", "GENERATION", "WORKERS", "TASKS");
}

void PrintModelRow(const v1::Model& model) {
  std::vector<std::string> tasks;
  for (const v1::TaskInfo& task : model.tasks()) tasks.push_back(v1::Task_Name(task.task()));
  const auto known = [](const std::string& text) { return text.empty() ? "-" : text; };
  std::cout << absl::StrFormat(kModelRow, model.name(), known(model.family()),
                               known(Printable(model.generation(), kErrorCells)),
                               known(WorkersText(model)), absl::StrJoin(tasks, ", "));
  if (!model.problem().empty())
    std::cout << "  problem: " << Printable(model.problem(), kErrorCells) << "\n";
}

void PrintModel(const v1::Model& model) {
  PrintLine("name", model.name());
  PrintLine("family", model.family());
  PrintLine("generation", Printable(model.generation(), kErrorCells));
  PrintLine("class", Printable(model.pipeline_class(), kErrorCells));
  PrintLine("license",
            Printable(model.license_link().empty()
                          ? model.license()
                          : absl::StrCat(model.license(), " (", model.license_link(), ")"),
                      kErrorCells));
  PrintLine("problem", Printable(model.problem(), kErrorCells));
  PrintLine("workers", WorkersText(model));
  if (model.has_limits()) PrintLine("limits", LimitsText(model.limits()));
  for (const v1::TaskInfo& task : model.tasks()) {
    PrintLine("task", v1::Task_Name(task.task()));
    PrintLine("  native", ShapeText(task.native()));
    PrintLine("  defaults", ShapeText(task.defaults()));
    if (task.defaults().has_num_inference_steps()) {
      PrintLine("", absl::StrFormat("%d steps, guidance %g", task.defaults().num_inference_steps(),
                                    task.defaults().guidance_scale()));
    }
    if (!task.defaults().negative_prompt().empty())
      PrintLine(
          "", absl::StrCat("without: ", Printable(task.defaults().negative_prompt(), kErrorCells)));
    for (const v1::KnobInfo& knob : task.knobs()) PrintLine("  knob", KnobText(knob));
  }
}

std::string Describe(const v1::Progress& progress) {
  if (progress.has_queue_position()) {
    std::string text = absl::StrCat("queued, ", progress.queue_position(),
                                    progress.queue_position() == 1 ? " job ahead" : " jobs ahead");
    const std::string waiting = WaitingText(progress.waiting_reason());
    if (!waiting.empty()) absl::StrAppend(&text, "; ", waiting);
    if (progress.has_start_eta())
      absl::StrAppend(&text, "; starts in ", EtaText(progress.start_eta()));
    if (progress.has_eta()) absl::StrAppend(&text, ", ends in ", EtaText(progress.eta()));
    return text;
  }
  std::string text = absl::AsciiStrToLower(v1::Stage_Name(progress.stage()));
  if (progress.total_steps() > 0) {
    absl::StrAppend(&text, " ", progress.step(), "/", progress.total_steps());
  }
  if (progress.total_passes() > 1) {
    absl::StrAppend(&text, ", pass ", progress.pass(), "/", progress.total_passes());
  }
  if (progress.attempt() > 1) absl::StrAppend(&text, ", attempt ", progress.attempt());
  if (progress.has_eta()) absl::StrAppend(&text, ", ", EtaText(progress.eta()), " left");
  return text;
}

void ProgressView::Show(const v1::Progress& progress) {
  const double fraction = std::clamp(progress.fraction(), 0.0, 1.0);
  if (is_terminal_) {
    const int filled = static_cast<int>(std::lround(fraction * kBarCells));
    std::cerr << "\r\033[K[" << std::string(static_cast<size_t>(filled), '#')
              << std::string(static_cast<size_t>(kBarCells - filled), '.') << "] "
              << absl::StrFormat("%3.0f%%", fraction * 100) << "  " << Describe(progress)
              << std::flush;
    is_drawn_ = true;
    return;
  }
  const std::string key = progress.has_queue_position()
                              ? absl::StrCat(progress.queue_position(), progress.waiting_reason())
                              : absl::StrCat(progress.attempt(), "/", progress.stage(), "/",
                                             static_cast<int>(fraction * 10));
  if (key == last_line_key_) return;
  last_line_key_ = key;
  std::cerr << absl::StrFormat("%3.0f%%  %s\n", fraction * 100, Describe(progress));
}

void ProgressView::Say(const std::string& line) {
  Clear();
  std::cerr << line << "\n";
}

void ProgressView::Clear() {
  if (!is_drawn_) return;
  std::cerr << "\r\033[K" << std::flush;
  is_drawn_ = false;
}

}  // namespace kino::cli
