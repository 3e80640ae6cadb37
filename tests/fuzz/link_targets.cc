// What workers say over the link, through what receives it in the frontend. A worker is trusted
// less than the frontend: it may end the attempts that it was given, and no others.
#include <spdlog/spdlog.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "google/protobuf/stubs/logging.h"
#include "scheduler/status.h"
#include "scheduler/store/sqlite/open.h"
#include "server/digest/sha256.h"
#include "server/frontend/link/finished_run.h"
#include "server/frontend/link/session.h"
#include "server/frontend/link/worker_link.h"
#include "server/frontend/rpc/job_view.h"
#include "tests/fuzz/framed.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::fuzz {
namespace {

constexpr char kSecret[] = "the secret";
constexpr char kModel[] = "model";
// In a message's place for what only the frontend knows.
constexpr char kOwnJob[] = "J";
constexpr char kOwnToken[] = "T";

// What outlives a run: files that many runs use are quicker than new ones.
struct Disk {
  Disk() {
    spdlog::set_level(spdlog::level::off);  // what a worker says wrongly is logged
    auto opened =
        scheduler::OpenSqliteJobStore({.path = folder.path() + "/jobs.db"}, {}, clock, random);
    Require(opened.ok(), "the job store opens");
    store = *std::move(opened);
    auto folder_of_files = frontend::FileStore::Open(folder.path());
    Require(folder_of_files.ok(), "the file store opens");
    files = *std::move(folder_of_files);
  }
  kino::testing::TempDir folder;
  scheduler::FakeClock clock;
  scheduler::SeededRandom random{7};
  std::unique_ptr<scheduler::JobStore> store;
  std::unique_ptr<frontend::FileStore> files;
  int64_t runs = 0;
};

Disk& TheDisk() {
  static Disk disk;
  return disk;
}

// The frontend's side with two queued jobs and one worker's stream, which the test writes.
class FrontendSide {
 public:
  FrontendSide();
  ~FrontendSide();

  // Takes the message as it came, and all that follows from it.
  void Receive(v1::WorkerMessage message);
  // Ends the stream and the link.
  void Stop();
  scheduler::Job JobOf(const std::string& id) const;
  // No histogram's sum is spoilt by what was said.
  void RequireSaneMetrics() const;
  const std::string& own() const { return own_; }
  const std::string& others() const { return others_; }

 private:
  std::string Submit(const std::string& tenant);
  void Settle();

  Disk& disk_ = TheDisk();
  frontend::WatchHub hub_;
  frontend::Metrics metrics_;
  config::LimitsConfig limits_;
  frontend::DiskBudget budget_{*disk_.store, *disk_.files, limits_};
  scheduler::RunHistory history_;
  frontend::Executor io_{"io", 1};
  std::unique_ptr<frontend::WorkerLink> link_;
  std::shared_ptr<frontend::Session> session_;
  std::string own_, others_;
};

FrontendSide::FrontendSide() {
  ++disk_.runs;
  limits_.min_free_disk_bytes = 0;
  own_ = Submit("a");
  others_ = Submit("b");
  frontend::WorkerLinkOptions options;
  options.workers = {"w"};
  options.models = {kModel};
  options.limits = limits_;
  options.link_secret = std::string(kSecret);
  options.devices_file = disk_.folder.path() + "/devices_out";
  link_ = std::make_unique<frontend::WorkerLink>(
      std::move(options),
      frontend::WorkerLinkParts{.store = *disk_.store,
                                .files = *disk_.files,
                                .budget = budget_,
                                .history = history_,
                                .hub = hub_,
                                .metrics = metrics_,
                                .clock = disk_.clock,
                                .io = io_,
                                .judge = [](const auto&, const auto&, auto done) { done({}); }});
  const absl::Status started =
      link_->Start(frontend::LastStop::kFrontendOnly, [] { return absl::OkStatus(); });
  Require(started.ok(), "the link starts");
  session_ = frontend::Session::Begin(*link_)->shared_from_this();
}

FrontendSide::~FrontendSide() {
  Stop();
  for (const std::string& id : {own_, others_}) {
    const scheduler::Job job = JobOf(id);
    if (job.state == scheduler::JobState::kRunning) {
      const scheduler::Attempt& last = job.attempts.back();
      Require(disk_.store
                  ->Fail({.job_id = id, .attempt = last.number, .token = last.token},
                         {.cause = scheduler::FailureCause::kClient,
                          .error = absl::InternalError("over"),
                          .stats = ""})
                  .ok(),
              "an attempt can be ended");
    } else if (job.state == scheduler::JobState::kQueued) {
      Require(disk_.store->Cancel(job.tenant, id).ok(), "a job can be cancelled");
    }
    for (const scheduler::Attempt& attempt : job.attempts)
      disk_.files->RemoveVideo(frontend::FileStore::VideoName(id, attempt.number));
    Require(disk_.store->Delete(job.tenant, id).ok(), "a job that has ended can be deleted");
  }
}

std::string FrontendSide::Submit(const std::string& tenant) {
  scheduler::NewJob job;
  job.id = absl::StrCat("job-", tenant, "-", disk_.runs);
  job.tenant = tenant;
  job.model = kModel;
  const std::string id = job.id;
  Require(disk_.store->Submit(std::move(job)).ok(), "a job is submitted");
  return id;
}

// Strand, store and io answer each other; after some rounds nothing is left to do.
void FrontendSide::Settle() {
  for (int round = 0; round < 4; ++round) {
    absl::Notification strand;
    link_->AskProfile("no such device", {}, [&](const auto&...) { strand.Notify(); });
    strand.WaitForNotification();
    (void)disk_.store->Cancel("nobody", "nothing");
    absl::Notification io;
    io_.Post([&] { io.Notify(); });
    io.WaitForNotification();
  }
}

void FrontendSide::Receive(v1::WorkerMessage message) {
  if (message.has_event() && message.event().ref().job_id() == kOwnJob) {
    message.mutable_event()->mutable_ref()->set_job_id(own_);
    const scheduler::Job job = JobOf(own_);
    if (!job.attempts.empty() && message.event().ref().token() == kOwnToken)
      message.mutable_event()->mutable_ref()->set_token(job.attempts.back().token);
  }
  link_->OnMessage(session_, std::move(message));
  Settle();
}

void FrontendSide::Stop() {
  if (session_ == nullptr) return;
  // As gRPC does when a stream is done.
  grpc::internal::ServerReactor& reactor = *session_;
  reactor.OnDone();
  session_.reset();
  Settle();
  link_->Stop();
  io_.Stop();
}

scheduler::Job FrontendSide::JobOf(const std::string& id) const {
  const absl::StatusOr<scheduler::Job> job = disk_.store->GetAnyTenant(id);
  Require(job.ok(), "an acknowledged job is there");
  return *job;
}

void FrontendSide::RequireSaneMetrics() const {
  for (const prometheus::MetricFamily& family : metrics_.registry()->Collect()) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      Require(std::isfinite(metric.histogram.sample_sum) && metric.histogram.sample_sum >= 0,
              "times that are told sum up to a time");
    }
  }
}

std::string BytesOf(const std::string& video_name) {
  const auto file = TheDisk().files->OpenVideo(video_name);
  Require(file.ok(), "an artifact's file is there");
  std::string bytes;
  const auto digest = TheDisk().files->FinishVideo(video_name);
  Require(digest.ok(), "an artifact's file can be read");
  Require((*file)->Read(0, static_cast<size_t>(digest->size_bytes), bytes).ok(),
          "an artifact can be read");
  return bytes;
}

bool RunWorkerMessages(std::string_view bytes) {
  [[maybe_unused]] static const auto log = google::protobuf::SetLogHandler(nullptr);
  const auto messages = Messages<v1::WorkerMessage>(bytes);
  if (!messages.has_value()) return false;
  FrontendSide frontend;
  std::string sent;  // all bytes of chunks, in their order
  for (const v1::WorkerMessage& message : *messages) {
    sent += message.event().chunk().data();
    frontend.Receive(message);
  }
  frontend.Stop();
  frontend.RequireSaneMetrics();
  const scheduler::Job own = frontend.JobOf(frontend.own());
  const scheduler::Job others = frontend.JobOf(frontend.others());
  Require(!scheduler::IsTerminal(others.state) && others.failures.crashes == 0,
          "who does not have an attempt's token cannot end it");
  Require(own.artifact.has_value() == (own.state == scheduler::JobState::kSucceeded),
          "what has succeeded has an artifact, and nothing else");
  if (own.artifact.has_value()) {
    const std::string video = BytesOf(own.artifact->file_name);
    Require(own.artifact->size_bytes == static_cast<int64_t>(video.size()) &&
                own.artifact->sha256 == digest::Sha256Of(video),
            "an artifact is its file");
    Require(video.size() <= sent.size(), "an artifact holds nothing that was not sent");
  }
  scheduler::RunHistory learnt;
  Require(frontend::LearnFromStore(*TheDisk().store, {kModel}, learnt).ok(),
          "what a run told can be learnt from");
  v1::Job read;
  Require(read.ParseFromString(frontend::ToProto(own, absl::Hours(1)).SerializeAsString()),
          "a job can be told");
  return own.state == scheduler::JobState::kSucceeded;
}

v1::WorkerMessage Hello() {
  v1::WorkerMessage message;
  v1::WorkerHello& hello = *message.mutable_hello();
  hello.set_protocol_version(1);
  hello.set_worker("w");
  hello.set_device("cpu");
  hello.set_max_attempts(1);
  hello.set_link_secret(kSecret);
  hello.add_models()->set_name(kModel);
  return message;
}

v1::WorkerMessage Event(int64_t number) {
  v1::WorkerMessage message;
  v1::AttemptEvent& event = *message.mutable_event();
  event.mutable_ref()->set_job_id(kOwnJob);
  event.mutable_ref()->set_attempt(1);
  event.mutable_ref()->set_token(kOwnToken);
  event.set_number(number);
  return message;
}

std::vector<v1::WorkerMessage> WholeRun() {
  v1::WorkerMessage started = Event(1);
  started.mutable_event()->mutable_started()->mutable_plan()->set_offload("none");
  v1::WorkerMessage progress = Event(0);
  progress.mutable_event()->mutable_progress()->set_fraction(0.5);
  progress.mutable_event()->mutable_progress()->set_stage(v1::DENOISE);
  v1::WorkerMessage beat;
  v1::AttemptPulse& pulse = *beat.mutable_heartbeat()->add_attempts();
  *pulse.mutable_ref() = started.event().ref();
  pulse.set_stage(v1::DENOISE);
  pulse.set_counter(3);
  pulse.set_steps(3);
  pulse.set_step_seconds(0.5);
  v1::WorkerMessage first = Event(2), second = Event(3);
  first.mutable_event()->mutable_chunk()->set_data("abc");
  second.mutable_event()->mutable_chunk()->set_offset(3);
  second.mutable_event()->mutable_chunk()->set_data("de");
  v1::WorkerMessage done = Event(4);
  v1::AttemptDone& end = *done.mutable_event()->mutable_done();
  end.mutable_artifact()->set_size_bytes(5);
  end.mutable_artifact()->set_sha256(digest::Sha256Of("abcde"));
  end.add_stages()->set_stage(v1::DENOISE);
  end.mutable_stages(0)->set_seconds(2);
  end.add_step_seconds(0.5);
  end.set_first_chunk_seconds(1);
  return {Hello(), started, progress, beat, first, second, done};
}

// A whole run whose worker measured nonsense: that costs no video.
std::vector<v1::WorkerMessage> RunThatMeasures(double odd) {
  std::vector<v1::WorkerMessage> run = WholeRun();
  for (v1::WorkerMessage& message : run) {
    if (message.has_heartbeat())
      message.mutable_heartbeat()->mutable_attempts(0)->set_step_seconds(odd);
    if (!message.has_event()) continue;
    v1::AttemptEvent& event = *message.mutable_event();
    if (event.has_progress()) event.mutable_progress()->set_fraction(odd);
    if (!event.has_done()) continue;
    v1::AttemptDone& done = *event.mutable_done();
    done.mutable_artifact()->set_fps(odd);
    done.mutable_stages(0)->set_seconds(odd);
    done.mutable_stages(0)->set_step_seconds(odd);
    done.set_step_seconds(0, odd);
    done.set_first_chunk_seconds(odd);
  }
  return run;
}

std::vector<std::string> WorkerMessagesSeeds() {
  std::vector<v1::WorkerMessage> run = WholeRun();
  std::vector<std::string> seeds = {Framed(run)};
  // What is sent again after a redial does no harm.
  run.insert(run.begin() + 5, run[4]);
  seeds.push_back(Framed(run));
  v1::WorkerMessage result, profile, draining;
  result.mutable_model_result()->set_command_id(1);
  profile.mutable_profile()->set_query_id(1);
  draining.mutable_draining();
  run.insert(run.begin() + 2, {result, profile, draining});
  seeds.push_back(Framed(run));
  for (const double odd : {std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity(), -1e308}) {
    seeds.push_back(Framed(RunThatMeasures(odd)));
  }
  return seeds;
}

}  // namespace

std::vector<FuzzTarget> LinkTargets() {
  return {{"worker_messages", RunWorkerMessages, WorkerMessagesSeeds, 2000}};
}

}  // namespace kino::fuzz
