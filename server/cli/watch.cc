#include "server/cli/watch.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "server/command_line/command_line.h"
#include "server/convert/status.h"

namespace kino::cli {
namespace {

constexpr absl::Duration kBackOffMin = absl::Milliseconds(100);
constexpr absl::Duration kBackOffMax = absl::Seconds(2);

// While it lives, this thread takes SIGINT as programs usually do.
class InterruptEnds {
 public:
  InterruptEnds() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &signals, &before_);
  }
  ~InterruptEnds() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  InterruptEnds(const InterruptEnds&) = delete;
  InterruptEnds& operator=(const InterruptEnds&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

InterruptWatch::InterruptWatch()
    : thread_([this] {
        pthread_setname_np(pthread_self(), "interrupt");
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGINT);
        const timespec tick = absl::ToTimespec(absl::Milliseconds(50));
        while (!stop_.load()) {
          if (sigtimedwait(&signals, nullptr, &tick) != SIGINT) continue;
          interrupted_.store(true);
          absl::MutexLock lock(&mutex_);
          if (context_ != nullptr) context_->TryCancel();
        }
      }) {}

InterruptWatch::~InterruptWatch() {
  stop_.store(true);
  thread_.join();
}

void InterruptWatch::SetCall(grpc::ClientContext* context) {
  absl::MutexLock lock(&mutex_);
  context_ = context;
  // It came just before: there is no other chance to end the call.
  if (context != nullptr && interrupted_.load()) context->TryCancel();
}

JobWatch::JobWatch(Client& client, WatchOptions options)
    : client_(client),
      options_(std::move(options)),
      view_(!options_.is_json && isatty(STDERR_FILENO) == 1) {}

ExitCode JobWatch::Generate(const v1::GenerateRequest& request) {
  request_ = request;
  return Follow();
}

ExitCode JobWatch::Watch(const std::string& id) {
  id_ = id;
  return Follow();
}

absl::Status JobWatch::OpenOutput() {
  if (output_ != nullptr || !options_.wants_video) return absl::OkStatus();
  // Without a name it takes the job's, which is known with the first event.
  if (options_.out.empty() && id_.empty()) return absl::OkStatus();
  // A pipe waits for its reader. What has a name is opened before anything is submitted, so that
  // Ctrl-C may simply end the program.
  std::optional<InterruptEnds> interrupt_ends;
  if (!options_.out.empty()) interrupt_ends.emplace();
  auto output = OutputFile::Create(options_.out.empty() ? absl::StrCat(id_, ".mp4") : options_.out,
                                   [this] { return interrupt_.has_come(); });
  if (!output.ok()) return output.status();
  output_ = *std::move(output);
  return absl::OkStatus();
}

ExitCode JobWatch::Follow() {
  local_error_ = OpenOutput();
  absl::Time give_up = absl::InfinitePast();
  absl::Duration back_off = kBackOffMin;
  while (local_error_.ok()) {
    heard_ = false;
    const absl::Status status = FollowOnce();
    if (finished_) return Conclude();
    if (!local_error_.ok()) break;
    if (interrupt_.Take()) {
      switch (Ask()) {
        case Answer::kLeave:
          return Leave();
        case Answer::kCancel: {
          v1::CancelJobRequest cancel;
          cancel.set_id(id_);
          v1::Job job;
          auto context = client_.UnaryContext();
          const absl::Status cancelled =
              ToStatus(client_.videos().CancelJob(context.get(), cancel, &job));
          if (!cancelled.ok()) return ReportError(cancelled, Style());
          break;
        }
        case Answer::kGoOn:
          break;
      }
      continue;
    }
    // An orderly end without the last event is a server that goes down. So is CANCELLED, which
    // nobody here asked for: gRPC gives it to calls that arrive while the server stops.
    if (!status.ok() && !absl::IsUnavailable(status) && !absl::IsCancelled(status)) {
      view_.Clear();
      return ReportError(status, Style());
    }
    if (heard_) {
      give_up = absl::Now() + options_.reattach;
      back_off = kBackOffMin;
      if (!options_.is_json) view_.Say("the connection was lost; attaching again");
    }
    if (absl::Now() >= give_up) {
      view_.Clear();
      ErrorStyle style = Style();
      style.job_id = id_;
      ReportError(absl::UnavailableError(std::string(status.message())), style);
      if (!id_.empty() && !options_.is_json) {
        std::cerr << "The job goes on. To come back: kino watch " << id_ << "\n";
      }
      return kUnreachable;
    }
    absl::SleepFor(back_off);
    back_off = std::min(back_off * 2, kBackOffMax);
  }
  view_.Clear();
  // A pipe that takes nothing cannot be gone on with: part of a chunk may be in it.
  if (absl::IsCancelled(local_error_)) return Leave();
  const ExitCode code = ReportLocalFault(local_error_);
  if (!id_.empty() && !options_.is_json) {
    std::cerr << "The job goes on: kino show " << id_ << "\n";
  }
  return code;
}

ErrorStyle JobWatch::Style() const {
  return {.server = client_.address(), .is_json = options_.is_json, .job_id = "", .asset_id = ""};
}

ExitCode JobWatch::ReportLocalFault(const absl::Status& error) const {
  ErrorStyle style = Style();
  style.job_id = id_;
  return ReportLocalError(error, "OUTPUT", style);
}

std::ostream& JobWatch::Words() const {
  return output_ != nullptr && output_->is_stdout() ? std::cerr : std::cout;
}

absl::Status JobWatch::FollowOnce() {
  auto context = client_.StreamContext();
  interrupt_.SetCall(context.get());
  std::unique_ptr<grpc::ClientReader<v1::JobEvent>> reader;
  if (id_.empty()) {
    reader = client_.videos().Generate(context.get(), *request_);
  } else {
    v1::WatchJobRequest request;
    request.set_id(id_);
    request.set_after_state_number(state_number_);
    request.set_no_video(!options_.wants_video);
    if (output_ != nullptr) {
      request.set_attempt(output_->attempt());
      request.set_offset(output_->offset());
    }
    reader = client_.videos().WatchJob(context.get(), request);
  }
  v1::JobEvent event;
  while (reader->Read(&event)) {
    local_error_ = Handle(event);
    if (!local_error_.ok()) {
      context->TryCancel();
      break;
    }
  }
  const grpc::Status status = reader->Finish();
  interrupt_.SetCall(nullptr);
  return ToStatus(status);
}

absl::Status JobWatch::Handle(const v1::JobEvent& event) {
  heard_ = true;
  if (id_.empty()) {
    id_ = event.job_id();
    if (!options_.is_json && !options_.is_quiet) view_.Say(absl::StrCat("job ", id_));
    if (absl::Status status = OpenOutput(); !status.ok()) return status;
  }
  if (options_.is_json && !event.has_video_chunk()) {
    PrintJson(event, Words());
    if (absl::Status error = command_line::TakeOutputError(); !error.ok()) return error;
  }
  switch (event.event_case()) {
    case v1::JobEvent::kStateChange:
      state_number_ = event.state_change().number();
      if (!options_.is_json && !options_.is_quiet && !event.state_change().reason().empty()) {
        view_.Say(absl::StrCat(v1::JobState_Name(event.state_change().state()), ": ",
                               event.state_change().reason()));
      }
      break;
    case v1::JobEvent::kProgress:
      if (!options_.is_json && !options_.is_quiet) view_.Show(event.progress());
      break;
    case v1::JobEvent::kVideoChunk:
      if (output_ != nullptr) {
        return output_->Write(event.video_chunk().attempt(), event.video_chunk().offset(),
                              event.video_chunk().data());
      }
      break;
    case v1::JobEvent::kFinished:
      finished_ = event.finished();
      break;
    case v1::JobEvent::kPreview:
    case v1::JobEvent::EVENT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

JobWatch::Answer JobWatch::Ask() {
  view_.Clear();
  if (!options_.is_interactive || id_.empty()) return Answer::kLeave;
  std::cerr << "Job " << id_ << ": [c]ancel it, [l]eave it running, or [g]o on watching? "
            << std::flush;
  while (true) {
    // A second Ctrl-C leaves.
    if (interrupt_.Take()) return Answer::kLeave;
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, 100) <= 0) continue;
    std::string line;
    if (!std::getline(std::cin, line)) return Answer::kLeave;
    if (line == "c" || line == "cancel") return Answer::kCancel;
    if (line == "l" || line == "leave") return Answer::kLeave;
    if (line == "g" || line == "go") return Answer::kGoOn;
    std::cerr << "c, l or g? " << std::flush;
  }
}

ExitCode JobWatch::Leave() {
  if (options_.is_json) {
    ErrorStyle style = Style();
    style.job_id = id_;
    absl::Status status =
        absl::CancelledError(id_.empty() ? "interrupted before the job was acknowledged"
                                         : "interrupted; the job goes on");
    google::rpc::ErrorInfo info;
    info.set_reason("INTERRUPTED");
    convert::AddDetail(&status, info);
    ReportError(status, style);
  } else if (id_.empty()) {
    std::cerr << "kino: interrupted before the job was acknowledged\n";
  } else {
    std::cerr << "\nJob " << id_ << " goes on.\n  to come back: kino watch " << id_
              << " --out FILE\n  to end it:    kino cancel " << id_ << "\n";
  }
  return kInterrupted;
}

ExitCode JobWatch::Conclude() {
  view_.Clear();
  const v1::Job& job = *finished_;
  if (job.state() == v1::SUCCEEDED) {
    if (output_ != nullptr) {
      const absl::Status status =
          job.has_artifact() ? output_->Finish(job.artifact().size_bytes(), job.artifact().sha256())
                             : absl::NotFoundError("the job's result has been removed");
      if (!status.ok()) return ReportLocalFault(status);
      if (!options_.is_json) {
        Words() << (options_.out.empty() ? absl::StrCat(id_, ".mp4") : options_.out) << "\n";
      }
    } else if (!options_.is_json) {
      Words() << v1::JobState_Name(job.state()) << "\n";
    }
    ErrorStyle style = Style();
    style.job_id = id_;
    return CheckOutputWritten(kOk, style);
  }
  if (options_.is_json) {
    // What is wrong with the job is in its last event; a code and a reason are here, as for every
    // other error.
    const absl::Status error = convert::FromRpc(job.error());
    const std::string ended =
        absl::StrCat("job ", job.id(), " ended as ", v1::JobState_Name(job.state()));
    ErrorStyle style = Style();
    style.job_id = job.id();
    style.server.clear();
    absl::Status told(error.ok() ? absl::StatusCode::kCancelled : error.code(),
                      error.ok() ? ended : absl::StrCat(ended, ": ", error.message()));
    error.ForEachPayload([&told](absl::string_view type_url, const absl::Cord& payload) {
      told.SetPayload(type_url, payload);
    });
    ReportError(told, style);
    return job.state() == v1::CANCELLED ? kCancelled : kJobFailed;
  }
  std::cerr << "kino: job " << job.id() << " ended as " << v1::JobState_Name(job.state());
  if (job.has_error()) std::cerr << ": " << job.error().message();
  std::cerr << "\n";
  return job.state() == v1::CANCELLED ? kCancelled : kJobFailed;
}

}  // namespace kino::cli
