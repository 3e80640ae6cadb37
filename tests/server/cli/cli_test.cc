// The `kino` program against a scripted server.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "kino/v1/models.grpc.pb.h"
#include "kino/v1/video.grpc.pb.h"
#include "server/convert/status.h"
#include "server/digest/sha256.h"
#include "tests/support/process.h"

namespace kino::cli {
namespace {

namespace fs = std::filesystem;
using grpc::ServerContext;
using grpc::Status;
using ::testing::HasSubstr;
using ::testing::Not;
using EventWriter = grpc::ServerWriter<v1::JobEvent>;

grpc::Status ToGrpc(const absl::Status& status) {
  return Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                convert::ToRpc(status).SerializeAsString());
}

std::string Digest(const std::string& bytes) {
  digest::Sha256 digest;
  digest.Update(bytes.data(), bytes.size());
  return digest.Hex();
}

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// Each call does what the test put in.
class ScriptedServer : public v1::VideoService::Service, public v1::ModelService::Service {
 public:
  std::function<Status(const v1::GenerateRequest&, EventWriter*)> generate;
  std::function<Status(const v1::WatchJobRequest&, EventWriter*)> watch;
  std::function<Status(int64_t offset, grpc::ServerWriter<v1::DownloadVideoResponse>*)> download;
  v1::Job job;
  Status status;
  int jobs_listed_first = 1;  // on the first page
  std::string knob;           // the only one that the model has
  std::string authorization, cancelled_id, deleted_id, uploaded, display_name;
  v1::SubmitJobRequest submitted;
  std::vector<v1::ListJobsRequest> listed;
  absl::Mutex mutex;

  Status Generate(ServerContext*, const v1::GenerateRequest* request, EventWriter* out) override {
    return generate(*request, out);
  }
  Status WatchJob(ServerContext*, const v1::WatchJobRequest* request, EventWriter* out) override {
    return watch(*request, out);
  }
  Status DownloadVideo(ServerContext*, const v1::DownloadVideoRequest* request,
                       grpc::ServerWriter<v1::DownloadVideoResponse>* out) override {
    return download(request->offset(), out);
  }
  Status SubmitJob(ServerContext* context, const v1::SubmitJobRequest* request,
                   v1::Job* out) override {
    const auto found = context->client_metadata().find("authorization");
    if (found != context->client_metadata().end()) {
      authorization = std::string(found->second.data(), found->second.size());
    }
    submitted = *request;
    *out = job;
    return status;
  }
  Status GetJob(ServerContext*, const v1::GetJobRequest*, v1::Job* out) override {
    *out = job;
    return status;
  }
  Status CancelJob(ServerContext*, const v1::CancelJobRequest* request, v1::Job* out) override {
    absl::MutexLock lock(&mutex);
    cancelled_id = request->id();
    *out = job;
    return status;
  }
  Status DeleteJob(ServerContext*, const v1::DeleteJobRequest* request,
                   v1::DeleteJobResponse*) override {
    deleted_id = request->id();
    return status;
  }
  Status ListJobs(ServerContext*, const v1::ListJobsRequest* request,
                  v1::ListJobsResponse* out) override {
    listed.push_back(*request);
    const int count = request->page_token().empty() ? jobs_listed_first : 1;
    for (int i = 0; i < count; ++i) *out->add_jobs() = job;
    if (request->page_token().empty()) out->set_next_page_token("more");
    return status;
  }
  Status UploadAsset(ServerContext*, grpc::ServerReader<v1::UploadAssetRequest>* in,
                     v1::Asset* out) override {
    v1::UploadAssetRequest message;
    v1::UploadAssetRequest::Header header;
    while (in->Read(&message)) {
      if (message.has_header()) header = message.header();
      uploaded += message.data();
    }
    display_name = header.display_name();
    EXPECT_EQ(header.size_bytes(), static_cast<int64_t>(uploaded.size()));
    EXPECT_EQ(header.sha256(), Digest(uploaded));
    out->set_id("asset-1");
    return status;
  }
  Status ListModels(ServerContext*, const v1::ListModelsRequest*,
                    v1::ListModelsResponse* out) override {
    v1::Model* const model = out->add_models();
    model->set_name("demo");
    if (!knob.empty()) {
      v1::KnobInfo* const told = model->add_tasks()->add_knobs();
      told->set_name(knob);
      told->set_type(v1::KnobInfo::NUMBER);
      told->set_help("Of the family.");
    }
    return status;
  }
  Status LoadModel(ServerContext*, const v1::LoadModelRequest* request, v1::Model* out) override {
    out->set_name(request->name());
    return status;
  }
};

class CliTest : public ::testing::Test {
 protected:
  CliTest() {
    fs::create_directories(folder_);
    Listen();
    server_.job.set_id("job-1");
    server_.job.mutable_request()->set_model("demo");
    server_.job.mutable_request()->set_prompt("a \x1b[31mstar");
  }
  ~CliTest() override {
    Close();
    fs::remove_all(folder_);
  }
  void Listen() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + folder_ + "/sock", grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1::VideoService::Service*>(&server_));
    builder.RegisterService(static_cast<v1::ModelService::Service*>(&server_));
    grpc_ = builder.BuildAndStart();
  }
  void Close() {
    if (grpc_ != nullptr) grpc_->Shutdown(absl::ToChronoTime(absl::Now()));
    grpc_.reset();
  }

  std::vector<std::string> Command(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), std::string(KINO_BIN_DIR) + "/kino");
    arguments.push_back("--server=unix:" + folder_ + "/sock");
    return arguments;
  }
  int Run(const std::vector<std::string>& arguments) {
    return support::Process(Command(arguments), log_).Wait();
  }
  std::string Output() const { return ReadAll(log_); }
  // The shell runs `kino ARGUMENTS --server ... REDIRECTIONS`; what is not redirected is Output().
  int RunShell(const std::string& arguments, const std::string& redirections,
               const std::string& before = "") {
    return support::Process({"/bin/bash", "-c",
                             before + " " + std::string(KINO_BIN_DIR) + "/kino " + arguments +
                                 " --server=unix:" + folder_ + "/sock " + redirections},
                            log_)
        .Wait();
  }
  // A job of these bytes, in two chunks.
  void ServeVideo(const std::string& bytes) {
    server_.generate = [this, bytes](const v1::GenerateRequest&, EventWriter* out) {
      out->Write(State(1, v1::QUEUED, 0));
      out->Write(Chunk(1, 0, bytes.substr(0, 3)));
      out->Write(Chunk(1, 3, bytes.substr(3)));
      out->Write(Finished(v1::SUCCEEDED, bytes));
      return Status::OK;
    };
    *server_.job.mutable_artifact() = Finished(v1::SUCCEEDED, bytes).finished().artifact();
    server_.download = [bytes](int64_t offset, grpc::ServerWriter<v1::DownloadVideoResponse>* out) {
      v1::DownloadVideoResponse piece;
      piece.set_offset(offset);
      piece.set_data(bytes.substr(static_cast<size_t>(offset)));
      out->Write(piece);
      return Status::OK;
    };
  }

  v1::JobEvent State(int64_t number, v1::JobState state, int attempt = 1) {
    v1::JobEvent event;
    event.set_job_id("job-1");
    event.mutable_state_change()->set_number(number);
    event.mutable_state_change()->set_state(state);
    event.mutable_state_change()->set_attempt(attempt);
    return event;
  }
  v1::JobEvent Chunk(int attempt, int64_t offset, const std::string& data) {
    v1::JobEvent event;
    event.set_job_id("job-1");
    event.mutable_video_chunk()->set_attempt(attempt);
    event.mutable_video_chunk()->set_offset(offset);
    event.mutable_video_chunk()->set_data(data);
    return event;
  }
  v1::JobEvent Finished(v1::JobState state, const std::string& bytes = "") {
    v1::JobEvent event;
    event.set_job_id("job-1");
    *event.mutable_finished() = server_.job;
    event.mutable_finished()->set_state(state);
    if (state == v1::SUCCEEDED) {
      event.mutable_finished()->mutable_artifact()->set_size_bytes(
          static_cast<int64_t>(bytes.size()));
      event.mutable_finished()->mutable_artifact()->set_sha256(Digest(bytes));
    }
    return event;
  }

  const std::string folder_ = "/tmp/kino-cli-test-" + std::to_string(getpid());
  const std::string log_ = folder_ + "/log";
  const std::string out_ = folder_ + "/out.mp4";
  ScriptedServer server_;
  std::unique_ptr<grpc::Server> grpc_;
};

TEST_F(CliTest, GenerateWritesTheVideoAndPrintsItsName) {
  server_.generate = [&](const v1::GenerateRequest& request, EventWriter* out) {
    EXPECT_EQ(request.prompt(), "a star");
    EXPECT_EQ(request.height(), 64);
    EXPECT_FALSE(request.request_id().empty()) << "a repeated submission must not make two jobs";
    out->Write(State(1, v1::QUEUED, 0));
    v1::JobEvent progress;
    progress.mutable_progress()->set_stage(v1::DENOISE);
    progress.mutable_progress()->set_step(3);
    progress.mutable_progress()->set_total_steps(25);
    progress.mutable_progress()->set_fraction(0.5);
    out->Write(progress);
    out->Write(Chunk(1, 0, "first attempt's bytes"));
    out->Write(Chunk(2, 0, "abc"));
    out->Write(Chunk(2, 3, "def"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "a star", "--height", "64", "--out", out_}), 0);
  EXPECT_EQ(ReadAll(out_), "abcdef");
  EXPECT_THAT(Output(), HasSubstr("denoise 3/25"));
  EXPECT_THAT(Output(), HasSubstr(out_ + "\n"));
}

TEST_F(CliTest, ALostConnectionIsTakenUpWhereItBroke) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    out->Write(State(2, v1::RUNNING));
    out->Write(Chunk(1, 0, "abc"));
    return Status(grpc::StatusCode::UNAVAILABLE, "going down");
  };
  std::vector<v1::WatchJobRequest> watched;
  server_.watch = [&](const v1::WatchJobRequest& request, EventWriter* out) {
    watched.push_back(request);
    if (watched.size() == 1) {
      out->Write(Chunk(1, 3, "de"));
      return Status::OK;  // an orderly end without the last event: the server is leaving
    }
    out->Write(Chunk(1, 5, "f"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", out_}), 0);
  EXPECT_EQ(ReadAll(out_), "abcdef");
  ASSERT_EQ(watched.size(), 2u);
  EXPECT_EQ(watched[0].id(), "job-1");
  EXPECT_EQ(watched[0].after_state_number(), 2);
  EXPECT_EQ(watched[0].attempt(), 1);
  EXPECT_EQ(watched[0].offset(), 3);
  EXPECT_EQ(watched[1].offset(), 5);
}

TEST_F(CliTest, WrongBytesAreNotTakenForTheVideo) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "abcdeX"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", out_}), 4);
  EXPECT_THAT(Output(), HasSubstr("SHA-256"));
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(CliTest, TheExitCodeTellsHowTheJobEnded) {
  for (const auto& [state, code] :
       {std::pair{v1::FAILED, 1}, {v1::QUARANTINED, 1}, {v1::EXPIRED, 1}, {v1::CANCELLED, 5}}) {
    server_.generate = [&, s = state](const v1::GenerateRequest&, EventWriter* out) {
      v1::JobEvent event = Finished(s);
      event.mutable_finished()->mutable_error()->set_message("the reason why");
      out->Write(event);
      return Status::OK;
    };
    EXPECT_EQ(Run({"generate", "x", "--out", out_}), code) << state;
    EXPECT_THAT(Output(), HasSubstr("the reason why"));
    EXPECT_FALSE(fs::exists(out_) || fs::exists(out_ + ".part"));
  }
}

TEST_F(CliTest, FieldViolationsArePrintedOneALine) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter*) {
    return ToGrpc(convert::InvalidRequest({{"height", "too tall"}, {"ltx.frame_rate", "is odd"}}));
  };
  EXPECT_EQ(Run({"generate", "x", "--out", out_}), 4);
  EXPECT_THAT(Output(), HasSubstr("  height: too tall\n  ltx.frame_rate: is odd\n"));
}

TEST_F(CliTest, QuotaReasonAndRetryArePrinted) {
  absl::Status status = absl::ResourceExhaustedError("the queue is full");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(7);
  convert::AddDetail(&status, retry);
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  convert::AddDetail(&status, info);
  server_.status = ToGrpc(status);
  EXPECT_EQ(Run({"submit", "x"}), 4);
  EXPECT_THAT(Output(), HasSubstr("the queue is full"));
  EXPECT_THAT(Output(), HasSubstr("QUEUE_FULL"));
  EXPECT_THAT(Output(), HasSubstr("try again in 7 s"));
}

TEST_F(CliTest, AnInterruptWithoutATerminalLeavesTheJobRunning) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    std::ofstream(folder_ + "/reached") << "x";
    // Until the client is gone.
    while (out->Write(State(1, v1::QUEUED, 0))) absl::SleepFor(absl::Milliseconds(1));
    return Status::CANCELLED;
  };
  support::Process process(Command({"generate", "x", "--out", out_}), log_);
  for (int i = 0; i < 20000 && Output().find("job job-1") == std::string::npos; ++i) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_THAT(Output(), HasSubstr("kino watch job-1"));
  absl::MutexLock lock(&server_.mutex);
  EXPECT_EQ(server_.cancelled_id, "");
}

TEST_F(CliTest, AnInterruptIsJsonWithJson) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    while (out->Write(State(1, v1::QUEUED, 0))) absl::SleepFor(absl::Milliseconds(1));
    return Status::CANCELLED;
  };
  support::Process process(Command({"generate", "x", "--json", "--out", out_}), log_);
  for (int i = 0; i < 20000 && Output().find("job-1") == std::string::npos; ++i) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 130);
  const std::string last = Output().substr(Output().rfind('\n', Output().size() - 2) + 1);
  EXPECT_EQ(last.find("{\"error\":{"), 0u) << last;
  EXPECT_THAT(last, HasSubstr(R"("reason":"INTERRUPTED")"));
  EXPECT_THAT(last, HasSubstr(R"("job":"job-1")"));
}

TEST_F(CliTest, ALostConnectionIsNoErrorWithJson) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    return Status(grpc::StatusCode::UNAVAILABLE, "going down");
  };
  server_.watch = [&](const v1::WatchJobRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "abcdef"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(RunShell("generate x --json --out " + out_, "2>&1 >/dev/null"), 0);
  EXPECT_EQ(Output(), "");
}

// The program on a terminal of its own: Type reaches its keyboard, AwaitText reads its screen.
class Terminal {
 public:
  explicit Terminal(const std::vector<std::string>& command) {
    pid_ = forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    std::vector<char*> argv;
    for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Terminal() { close(fd_); }
  void Type(const std::string& keys) {
    EXPECT_EQ(write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  bool AwaitText(const std::string& text) {
    char buffer[4096];
    while (screen_.find(text) == std::string::npos) {
      const ssize_t got = read(fd_, buffer, sizeof(buffer));
      if (got <= 0) return false;
      screen_.append(buffer, static_cast<size_t>(got));
    }
    screen_.clear();
    return true;
  }
  int Wait() {
    char buffer[4096];
    while (read(fd_, buffer, sizeof(buffer)) > 0) {
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
  std::string screen_;
};

class InterruptTest : public CliTest {
 protected:
  // Before the program starts, what it will find.
  void SetUp() override {
    server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
      while (out->Write(State(1, v1::RUNNING))) absl::SleepFor(absl::Milliseconds(1));
      return Status::CANCELLED;
    };
    server_.watch = [&](const v1::WatchJobRequest& request, EventWriter* out) {
      EXPECT_EQ(request.after_state_number(), 1);
      out->Write(server_.cancelled_id.empty() ? Finished(v1::SUCCEEDED) : Finished(v1::CANCELLED));
      return Status::OK;
    };
    terminal_.emplace(Command({"generate", "x", "--out", out_}));
    EXPECT_TRUE(terminal_->AwaitText("job job-1"));
    terminal_->Type("\x03");
    EXPECT_TRUE(terminal_->AwaitText("[c]ancel"));
  }
  std::optional<Terminal> terminal_;
};

TEST_F(InterruptTest, CancelEndsTheJob) {
  terminal_->Type("what\nc\n");
  EXPECT_EQ(terminal_->Wait(), 5);
  EXPECT_EQ(server_.cancelled_id, "job-1");
}

TEST_F(InterruptTest, LeaveLeavesItRunning) {
  terminal_->Type("l\n");
  EXPECT_TRUE(terminal_->AwaitText("kino watch job-1"));
  EXPECT_EQ(terminal_->Wait(), 130);
  EXPECT_EQ(server_.cancelled_id, "");
}

TEST_F(InterruptTest, GoOnWatchesOn) {
  terminal_->Type("g\n");
  EXPECT_EQ(terminal_->Wait(), 0);
  EXPECT_EQ(server_.cancelled_id, "");
}

TEST_F(InterruptTest, ASecondInterruptLeaves) {
  terminal_->Type("\x03");
  EXPECT_EQ(terminal_->Wait(), 130);
}

TEST_F(CliTest, SubmitPrintsTheIdAndSendsTheToken) {
  EXPECT_EQ(Run({"submit", "x", "--token", "sesame", "--label", "a=b"}), 0);
  EXPECT_EQ(Output(), "job-1\n");
  EXPECT_EQ(server_.authorization, "Bearer sesame");
  EXPECT_EQ(server_.submitted.request().labels().at("a"), "b");
}

TEST_F(CliTest, AnImageIsUploadedAndNamed) {
  const std::string bytes(2'500'000, 'p');
  std::ofstream(folder_ + "/a.png") << bytes;
  EXPECT_EQ(Run({"submit", "x", "--image", folder_ + "/a.png"}), 0);
  EXPECT_EQ(server_.uploaded, bytes);
  ASSERT_EQ(server_.submitted.request().conditions_size(), 1);
  EXPECT_EQ(server_.submitted.request().conditions(0).asset_id(), "asset-1");
  EXPECT_EQ(Run({"submit", "x", "--image", folder_ + "/absent.png"}), 4);
  EXPECT_THAT(Output(), HasSubstr("absent.png"));
}

TEST_F(CliTest, WatchWithoutAFileAsksForNoVideo) {
  server_.watch = [&](const v1::WatchJobRequest& request, EventWriter* out) {
    EXPECT_TRUE(request.no_video());
    EXPECT_EQ(request.id(), "job-1");
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"watch", "job-1"}), 0);
  EXPECT_EQ(Output(), "SUCCEEDED\n");
}

TEST_F(CliTest, JsonIsOneObjectALineWithoutVideoBytes) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(State(1, v1::QUEUED, 0));
    out->Write(Chunk(1, 0, "abcdef"));
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--json", "--out", out_}), 0);
  std::istringstream lines(Output());
  std::string line;
  std::getline(lines, line);
  EXPECT_THAT(line, HasSubstr(R"("state_change":{"number":"1","state":"QUEUED")"));
  std::getline(lines, line);
  EXPECT_THAT(line, HasSubstr(R"("finished":{"id":"job-1","state":"SUCCEEDED")"));
  EXPECT_FALSE(std::getline(lines, line));
}

TEST_F(CliTest, DownloadResumesByOffset) {
  *server_.job.mutable_artifact() = Finished(v1::SUCCEEDED, "abcdef").finished().artifact();
  server_.download = [](int64_t offset, grpc::ServerWriter<v1::DownloadVideoResponse>* out) {
    const std::string all = "abcdef";
    v1::DownloadVideoResponse piece;
    piece.set_offset(offset);
    piece.set_data(all.substr(static_cast<size_t>(offset), 2));
    out->Write(piece);
    return offset < 4 ? Status(grpc::StatusCode::UNAVAILABLE, "dropped") : Status::OK;
  };
  EXPECT_EQ(Run({"download", "job-1", "--out", out_}), 0);
  EXPECT_EQ(ReadAll(out_), "abcdef");
}

TEST_F(CliTest, DownloadOfAJobWithoutVideoIsRefused) {
  EXPECT_EQ(Run({"download", "job-1", "--out", out_}), 4);
  EXPECT_THAT(Output(), HasSubstr("has no video"));
}

TEST_F(CliTest, JobsFollowsPagesAndFilters) {
  EXPECT_EQ(Run({"jobs", "--state", "queued", "--model", "demo", "--label", "a=b"}), 0);
  ASSERT_EQ(server_.listed.size(), 2u);
  EXPECT_EQ(server_.listed[0].states(0), v1::QUEUED);
  EXPECT_EQ(server_.listed[0].model(), "demo");
  EXPECT_EQ(server_.listed[0].labels().at("a"), "b");
  EXPECT_EQ(server_.listed[1].page_token(), "more");
  EXPECT_THAT(Output(), HasSubstr("job-1"));
  EXPECT_THAT(Output(), Not(HasSubstr("\x1b"))) << "a prompt must not reach the terminal raw";
}

TEST_F(CliTest, TheOneCallCommandsReachTheirMethods) {
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("job-1"));
  EXPECT_EQ(Run({"cancel", "job-1"}), 0);
  EXPECT_EQ(server_.cancelled_id, "job-1");
  EXPECT_EQ(Run({"delete", "job-1"}), 0);
  EXPECT_EQ(server_.deleted_id, "job-1");
  EXPECT_EQ(Run({"models"}), 0);
  EXPECT_THAT(Output(), HasSubstr("demo"));
  EXPECT_EQ(Run({"load", "demo", "--json"}), 0);
  EXPECT_EQ(Output(), "{\"name\":\"demo\"}\n");
  EXPECT_EQ(Run({"unload", "demo"}), 4) << "this server does not implement it";
}

TEST_F(CliTest, AModelsKnobsAreOptions) {
  server_.knob = "depth_of_field";
  EXPECT_EQ(Run({"submit", "--depth-of-field", "0.5", "a prompt"}), 0) << Output();
  EXPECT_EQ(server_.submitted.request().prompt(), "a prompt");
  EXPECT_EQ(server_.submitted.request().knobs().at("depth_of_field").number(), 0.5);
  EXPECT_EQ(Run({"submit", "a prompt", "--depth-of-field", "deep"}), 2);
  EXPECT_THAT(Output(), HasSubstr("--depth-of-field: expected a finite number, got 'deep'"));
  EXPECT_EQ(Run({"submit", "a prompt", "--colour", "red"}), 2);
  EXPECT_THAT(Output(), HasSubstr("'--colour'"));
  EXPECT_THAT(Output(), HasSubstr("--depth-of-field"));
  EXPECT_EQ(Run({"submit", "--help"}), 0);
  EXPECT_THAT(Output(), HasSubstr("--depth-of-field X"));
  EXPECT_THAT(Output(), HasSubstr("Of the family."));
  EXPECT_EQ(Run({"submit", "--version"}), 0);
  EXPECT_EQ(Output(), "kino " KINO_VERSION "\n");
}

TEST_F(CliTest, HelpNeedsNoServer) {
  Close();
  EXPECT_EQ(Run({"submit", "--help"}), 0);
  EXPECT_THAT(Output(), HasSubstr("--guidance-scale X"));
  EXPECT_THAT(Output(), HasSubstr("--help --model NAME"));
}

TEST_F(CliTest, AnAbsentServerIsUnreachable) {
  Close();
  for (const char* command : {"generate", "submit", "models"}) {
    std::vector<std::string> arguments = {command};
    if (std::string(command) == "generate") arguments.push_back("--out=" + out_);
    EXPECT_EQ(Run(arguments), 3) << command;
    EXPECT_THAT(Output(), HasSubstr("cannot be reached"));
  }
  EXPECT_FALSE(fs::exists(out_ + ".part"));
}

TEST_F(CliTest, AnUnwritableFileIsToldBeforeAnythingIsSubmitted) {
  server_.generate = [](const v1::GenerateRequest&, EventWriter*) {
    ADD_FAILURE() << "submitted";
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", "/nonexistent/a.mp4"}), 4);
  EXPECT_THAT(Output(), HasSubstr("/nonexistent/a.mp4"));
}

TEST_F(CliTest, BadUsageIsExitCodeTwo) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"dance"}, {"show"}, {"jobs", "--state", "odd"}, {"generate", "--height", "tall"}}) {
    EXPECT_EQ(Run(arguments), 2) << arguments[0];
  }
  EXPECT_EQ(support::Process({std::string(KINO_BIN_DIR) + "/kino"}, log_).Wait(), 2);
  EXPECT_EQ(support::Process({std::string(KINO_BIN_DIR) + "/kino", "--version"}, log_).Wait(), 0);
  EXPECT_THAT(Output(), HasSubstr(KINO_VERSION));
  EXPECT_EQ(Run({"generate", "--help"}), 0);
}

TEST_F(CliTest, APipeGetsTheVideoAndStaysAPipe) {
  ServeVideo("abcdef");
  const std::string pipe = folder_ + "/pipe.mp4";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const char* command : {"generate x", "download job-1"}) {
    EXPECT_EQ(RunShell(std::string(command) + " --out " + pipe, "",
                       "cat " + pipe + " > " + folder_ + "/got &"),
              0)
        << Output();
    // The reader has its end of file by then, but not yet the processor.
    for (int i = 0; i < 20000 && ReadAll(folder_ + "/got") != "abcdef"; ++i) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_EQ(ReadAll(folder_ + "/got"), "abcdef") << command;
    EXPECT_TRUE(fs::is_fifo(pipe));
    EXPECT_FALSE(fs::exists(pipe + ".part"));
    fs::remove(folder_ + "/got");
  }
}

TEST_F(CliTest, AnInterruptEndsTheWaitForAPipesReader) {
  server_.generate = [](const v1::GenerateRequest&, EventWriter*) {
    ADD_FAILURE() << "submitted";
    return Status::OK;
  };
  const std::string pipe = folder_ + "/pipe.mp4";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  support::Process process(Command({"generate", "x", "--out", pipe}), log_);
  // The main thread blocks SIGINT before there is another, and lets it through while it opens.
  const auto is_opening = [&] {
    const std::string status = ReadAll("/proc/" + std::to_string(process.pid()) + "/status");
    const size_t threads = status.find("Threads:\t"), blocked = status.find("SigBlk:\t");
    if (threads == std::string::npos || blocked == std::string::npos) return false;
    return std::stoi(status.substr(threads + 9)) > 1 &&
           (std::stoull(status.substr(blocked + 8, 16), nullptr, 16) & 1u << (SIGINT - 1)) == 0;
  };
  for (int i = 0; i < 20000 && !is_opening(); ++i) absl::SleepFor(absl::Milliseconds(1));
  process.Signal(SIGINT);
  ASSERT_TRUE(process.EndsWithin(60));
  EXPECT_EQ(process.Wait(), -SIGINT);
}

TEST_F(CliTest, AnInterruptLeavesAPipeThatTakesNothing) {
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, std::string(300'000, 'v')));
    while (out->Write(State(1, v1::RUNNING))) absl::SleepFor(absl::Milliseconds(1));
    return Status::CANCELLED;
  };
  const std::string pipe = folder_ + "/pipe.mp4";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  const int holds = fcntl(reader, F_GETPIPE_SZ);
  support::Process process(Command({"generate", "x", "--out", pipe}), log_);
  int waiting = 0;
  for (int i = 0; i < 20000 && waiting < holds; ++i) {
    absl::SleepFor(absl::Milliseconds(1));
    ASSERT_EQ(ioctl(reader, FIONREAD, &waiting), 0);
  }
  EXPECT_EQ(waiting, holds);
  process.Signal(SIGINT);
  ASSERT_TRUE(process.EndsWithin(60));
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_THAT(Output(), HasSubstr("kino watch job-1"));
  close(reader);
}

TEST_F(CliTest, ATerminalGetsTheVideoAndStaysATerminal) {
  ServeVideo("abcdef");
  int ours = -1, theirs = -1;
  char name[256];
  ASSERT_EQ(openpty(&ours, &theirs, name, nullptr, nullptr), 0);
  EXPECT_EQ(Run({"download", "job-1", "--out", name}), 0) << Output();
  char got[6];
  EXPECT_EQ(read(ours, got, sizeof(got)), 6);
  EXPECT_EQ(std::string(got, 6), "abcdef");
  EXPECT_TRUE(fs::is_character_file(name));
  close(ours);
  close(theirs);
}

TEST_F(CliTest, ALinkStaysAndItsFileIsReplaced) {
  ServeVideo("abcdef");
  std::ofstream(folder_ + "/real.mp4") << "what was there";
  fs::create_symlink("real.mp4", folder_ + "/link.mp4");
  fs::create_symlink("new.mp4", folder_ + "/dangling.mp4");
  for (const auto& [link, file] :
       {std::pair("/link.mp4", "/real.mp4"), {"/dangling.mp4", "/new.mp4"}}) {
    EXPECT_EQ(Run({"generate", "x", "--out", folder_ + link}), 0) << Output();
    EXPECT_TRUE(fs::is_symlink(folder_ + link));
    EXPECT_FALSE(fs::is_symlink(folder_ + file));
    EXPECT_EQ(ReadAll(folder_ + file), "abcdef");
  }
  // A failed one leaves it as it was.
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "xyz"));
    out->Write(Finished(v1::FAILED));
    return Status::OK;
  };
  EXPECT_EQ(Run({"generate", "x", "--out", folder_ + "/link.mp4"}), 1);
  EXPECT_EQ(ReadAll(folder_ + "/real.mp4"), "abcdef");
}

TEST_F(CliTest, AFolderIsRefusedBeforeAnythingIsSubmittedOrUploaded) {
  server_.generate = [](const v1::GenerateRequest&, EventWriter*) {
    ADD_FAILURE() << "submitted";
    return Status::OK;
  };
  server_.watch = [](const v1::WatchJobRequest&, EventWriter*) {
    ADD_FAILURE() << "watched";
    return Status::OK;
  };
  std::ofstream(folder_ + "/a.png") << "picture";
  EXPECT_EQ(Run({"generate", "x", "--image", folder_ + "/a.png", "--out", folder_}), 4);
  EXPECT_THAT(Output(), HasSubstr("'" + folder_ + "': it is a folder"));
  EXPECT_EQ(server_.uploaded, "");
  EXPECT_EQ(Run({"watch", "job-1", "--out", folder_}), 4);
  EXPECT_EQ(Run({"download", "job-1", "--out", folder_}), 4);
  EXPECT_THAT(Output(), HasSubstr("it is a folder"));
}

TEST_F(CliTest, ADashIsStandardOutputAndWordsGoElsewhere) {
  ServeVideo("abcdef");
  const std::string out = folder_ + "/stdout", err = folder_ + "/stderr";
  for (const std::string name : {"-", "/dev/stdout"}) {
    for (const std::string command :
         {"generate x", "generate x --json", "download job-1", "download job-1 --json"}) {
      EXPECT_EQ(RunShell(command + " --out " + name, "> " + out + " 2> " + err), 0) << ReadAll(err);
      EXPECT_EQ(ReadAll(out), "abcdef") << command;
      const bool is_json = command.find("--json") != std::string::npos;
      EXPECT_THAT(ReadAll(err), HasSubstr(is_json ? "\"sha256\"" : name + "\n"));
    }
  }
  EXPECT_FALSE(fs::exists("-") || fs::exists("-.part"));
  EXPECT_EQ(RunShell("download job-1 --out -", ">&-"), 4);
  EXPECT_EQ(RunShell("download job-1 --out -", "> /dev/full"), 4);
  EXPECT_THAT(Output(), HasSubstr("No space left"));
}

TEST_F(CliTest, AStreamGoesOnWithAnAttemptOfTheSameBytesAndNoOther) {
  std::string second = "abcdef";
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    out->Write(Chunk(1, 0, "abcd"));
    out->Write(Chunk(2, 0, second.substr(0, 1)));
    out->Write(Chunk(3, 0, second.substr(0, 2)));  // ended before it had given all again
    out->Write(Chunk(3, 2, second.substr(2)));
    out->Write(Finished(v1::SUCCEEDED, second));
    return Status::OK;
  };
  const std::string out = folder_ + "/stdout";
  EXPECT_EQ(RunShell("generate x --out -", "> " + out), 0) << Output();
  EXPECT_EQ(ReadAll(out), "abcdef");
  for (const std::string other : {"abXdef", "abc"}) {
    second = other;
    EXPECT_EQ(RunShell("generate x --out -", "> " + out), 4);
    EXPECT_EQ(ReadAll(out), "abcd");
  }
}

// What reaches a proxy, which answers nothing.
class Proxy {
 public:
  Proxy() {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0; close(fd)) {
        char bytes[512];
        const ssize_t got = read(fd, bytes, sizeof(bytes));
        absl::MutexLock lock(&mutex_);
        if (got > 0) asked_.append(bytes, static_cast<size_t>(got));
      }
    });
  }
  ~Proxy() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::string asked() {
    absl::MutexLock lock(&mutex_);
    return asked_;
  }

 private:
  int listener_ = -1, port_ = 0;
  absl::Mutex mutex_;
  std::string asked_;
  std::thread thread_;
};

TEST_F(CliTest, AProxyIsForOtherMachinesOnly) {
  Proxy proxy;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(static_cast<v1::VideoService::Service*>(&server_));
  const std::unique_ptr<grpc::Server> tcp = builder.BuildAndStart();
  const auto show = [&](const std::string& server, const std::string& environment) {
    return support::Process({"/bin/bash", "-c",
                             "http_proxy=" + proxy.url() + " " + environment + " timeout 60 " +
                                 std::string(KINO_BIN_DIR) + "/kino show job-1 --server=" + server},
                            log_)
        .Wait();
  };
  for (const std::string host : {"127.0.0.1", "localhost", "dns:///127.0.0.1"}) {
    EXPECT_EQ(show(host + ":" + std::to_string(port), ""), 0) << Output();
  }
  EXPECT_EQ(show("unix:" + folder_ + "/sock", ""), 0) << Output();
  EXPECT_EQ(proxy.asked(), "");
  EXPECT_EQ(show("kino.invalid:50051", "no_proxy=kino.invalid"), 3);
  EXPECT_EQ(proxy.asked(), "");
  EXPECT_EQ(show("kino.invalid:50051", ""), 3);
  EXPECT_THAT(proxy.asked(), HasSubstr("CONNECT kino.invalid:50051"));
  tcp->Shutdown(absl::ToChronoTime(absl::Now()));
}

TEST_F(CliTest, StandardOutputThatCannotBeWrittenIsNotDone) {
  ServeVideo("abcdef");
  server_.watch = [&](const v1::WatchJobRequest&, EventWriter* out) {
    out->Write(Finished(v1::SUCCEEDED, "abcdef"));
    return Status::OK;
  };
  std::ofstream(folder_ + "/a.png") << "picture";
  const std::string commands[] = {"submit x",
                                  "submit x --json",
                                  "jobs",
                                  "jobs --json",
                                  "show job-1",
                                  "cancel job-1",
                                  "models",
                                  "models --json",
                                  "load demo",
                                  "watch job-1",
                                  "watch job-1 --json",
                                  "upload " + folder_ + "/a.png",
                                  "generate x --out " + out_,
                                  "generate x --json --out " + out_,
                                  "download job-1 --out " + out_,
                                  "submit --help",
                                  "jobs --help",
                                  "--help",
                                  "--version"};
  for (const std::string& command : commands) {
    for (const char* redirection : {"> /dev/full", ">&-"}) {
      server_.uploaded.clear();
      EXPECT_EQ(RunShell(command, redirection), 4) << command << redirection << Output();
      EXPECT_THAT(Output(), HasSubstr("standard output cannot be written")) << command;
      if (command.find("--json") != std::string::npos) {
        EXPECT_EQ(Output().find("{\"error\":{"), 0u) << command << Output();
        EXPECT_EQ(Output().find('\n'), Output().size() - 1) << "told once: " << Output();
      }
    }
    server_.uploaded.clear();
    EXPECT_EQ(RunShell(command, ""), 0) << command << Output();
  }
  for (const char* redirection : {"> /dev/full", ">&-", "| true"}) {
    EXPECT_NE(RunShell("submit x", redirection, "set -o pipefail;"), 0) << redirection;
    EXPECT_THAT(Output(), HasSubstr("the job is job-1")) << redirection;
    server_.uploaded.clear();
    EXPECT_NE(RunShell("upload " + folder_ + "/a.png", redirection, "set -o pipefail;"), 0);
    EXPECT_THAT(Output(), HasSubstr("the asset is asset-1")) << redirection;
  }
  // A job whose events nobody can read goes on, and its id is told.
  EXPECT_EQ(RunShell("generate x --json --quiet --out " + out_, "> /dev/full"), 4);
  EXPECT_THAT(Output(), HasSubstr("\"job\":\"job-1\""));
}

TEST_F(CliTest, APipeIsUploadedReadOnce) {
  const std::string bytes(2'500'000, 'p');
  std::ofstream(folder_ + "/a.png") << bytes;
  for (const auto& [file, redirection] : {std::pair("<(cat " + folder_ + "/a.png)", std::string()),
                                          {"-", "< " + folder_ + "/a.png"},
                                          {"-", "< <(cat " + folder_ + "/a.png)"}}) {
    server_.uploaded.clear();
    EXPECT_EQ(RunShell("upload " + file, redirection), 0) << Output();
    EXPECT_EQ(server_.uploaded, bytes);
    server_.uploaded.clear();
    EXPECT_EQ(RunShell("submit x --image " + file, redirection), 0) << Output();
    EXPECT_EQ(server_.uploaded, bytes);
  }
  EXPECT_EQ(RunShell("upload -", "<&-"), 4);
  EXPECT_THAT(Output(), HasSubstr("cannot be read"));
  EXPECT_EQ(RunShell("upload " + folder_, ""), 4);
}

TEST_F(CliTest, AFilesNameOfOtherBytesIsShownWithoutThem) {
  const std::string path = folder_ + "/caf\xe9.png";
  std::ofstream(path) << "picture";
  EXPECT_EQ(Run({"upload", path}), 0) << Output();
  EXPECT_EQ(server_.display_name, "caf\xef\xbf\xbd.png");
}

TEST_F(CliTest, ARequestComesFromStandardInputOrAPipe) {
  for (const auto& [file, redirection] :
       {std::pair("-", "<<< '{\"prompt\": \"a star\", \"seed\": \"7\"}'"),
        {"<(echo '{\"prompt\": \"a star\", \"seed\": 7}')", ""}}) {
    EXPECT_EQ(RunShell(std::string("submit --height 64 --request ") + file, redirection), 0)
        << Output();
    EXPECT_EQ(server_.submitted.request().prompt(), "a star");
    EXPECT_EQ(server_.submitted.request().seed(), 7u);
    EXPECT_EQ(server_.submitted.request().height(), 64);
  }
  EXPECT_EQ(RunShell("submit --request -", "< /dev/null"), 2);
  EXPECT_THAT(Output(), HasSubstr("--request: '-' cannot be read: it is empty"));
  EXPECT_EQ(RunShell("submit --request -", "<&-"), 2);
}

TEST_F(CliTest, TextThatIsNotUtf8IsUsageAndNamesItsOption) {
  const std::string bytes = "caf\xe9";
  std::ofstream(folder_ + "/r.json") << "{\"prompt\": \"" << bytes << "\"}";
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"submit", bytes}, "PROMPT"},
      {{"submit", "--prompt", bytes}, "--prompt"},
      {{"generate", "x", "--negative-prompt", bytes}, "--negative-prompt"},
      {{"submit", "x", "--label", "k=" + bytes}, "--label"},
      {{"submit", "x", "--model", bytes}, "--model"},
      {{"submit", "x", "--request-id", bytes}, "--request-id"},
      {{"submit", "x", "--offload", bytes}, "--offload"},
      {{"submit", "--request", folder_ + "/r.json"}, "--request"},
      {{"jobs", "--label", bytes + "=v"}, "--label"},
      {{"show", bytes}, "ID"},
      {{"load", bytes}, "MODEL"},
  };
  for (const auto& [arguments, option] : cases) {
    EXPECT_EQ(Run(arguments), 2) << option << Output();
    EXPECT_THAT(Output(), HasSubstr("kino: " + std::string(option) + ":"));
    EXPECT_THAT(Output(), HasSubstr("UTF-8"));
    EXPECT_THAT(Output(), Not(HasSubstr(bytes))) << "raw bytes on a terminal";
  }
}

TEST_F(CliTest, MoreJobsThanAreShownAreToldOf) {
  server_.jobs_listed_first = 100;
  EXPECT_EQ(RunShell("jobs", "> /dev/null"), 0);
  EXPECT_EQ(
      Output(),
      "kino: there are more jobs than these 100; --limit N shows so many, --all all of them\n");
  EXPECT_EQ(server_.listed.back().page_size(), 100);
  for (const char* silent : {"jobs --quiet", "jobs --limit 100"}) {
    EXPECT_EQ(RunShell(silent, "> /dev/null"), 0);
    EXPECT_EQ(Output(), "");
  }
  server_.listed.clear();
  EXPECT_EQ(RunShell("jobs --all --json", "| wc -l"), 0);
  EXPECT_EQ(Output(), "101\n");
  ASSERT_EQ(server_.listed.size(), 2u);
  EXPECT_EQ(server_.listed[0].page_size(), 1000);
  EXPECT_EQ(Run({"jobs", "--all", "--limit", "5"}), 2);
  server_.jobs_listed_first = 99;  // the second page fills the hundred and is the last
  EXPECT_EQ(RunShell("jobs", "> /dev/null"), 0);
  EXPECT_EQ(Output(), "");
}

TEST_F(CliTest, ErrorsAreJsonWithJson) {
  server_.status = ToGrpc(convert::InvalidRequest({{"height", "too tall"}}));
  EXPECT_EQ(RunShell("submit x --json", "2>&1 >/dev/null"), 4);
  EXPECT_THAT(Output(), HasSubstr(R"("code":"INVALID_ARGUMENT")"));
  EXPECT_THAT(Output(), HasSubstr(R"("field":"height")"));
  EXPECT_THAT(Output(), HasSubstr(R"("description":"too tall")"));
  absl::Status status = absl::ResourceExhaustedError("the queue is full");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(7);
  convert::AddDetail(&status, retry);
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  convert::AddDetail(&status, info);
  server_.status = ToGrpc(status);
  for (const char* command : {"show job-1", "submit x", "cancel job-1", "delete job-1"}) {
    EXPECT_EQ(RunShell(std::string(command) + " --json", ""), 4);
    EXPECT_THAT(Output(), HasSubstr(R"("reason":"QUEUE_FULL")"));
    EXPECT_THAT(Output(), HasSubstr(R"("message":"the queue is full")"));
    EXPECT_THAT(Output(), HasSubstr(R"("retry_seconds":7)"));
    EXPECT_EQ(Output().find('{'), 0u);
    EXPECT_EQ(Output().find('\n'), Output().size() - 1) << "one line";
  }
  for (const char* command : {"jobs --limit 0", "submit --height tall", "submit x --json --height",
                              "dance", "jobs --state odd", "submit --label x y",
                              "generate x --out "
                              "/tmp"}) {
    const int code = RunShell(std::string(command) + " --json", "");
    EXPECT_EQ(code, std::string(command).find("--out") == std::string::npos ? 2 : 4) << command;
    EXPECT_EQ(Output().find("{\"error\":{"), 0u) << Output();
  }
  server_.generate = [&](const v1::GenerateRequest&, EventWriter* out) {
    v1::JobEvent event = Finished(v1::FAILED);
    event.mutable_finished()->mutable_error()->set_code(14);
    event.mutable_finished()->mutable_error()->set_message("the reason why");
    out->Write(event);
    return Status::OK;
  };
  EXPECT_EQ(RunShell("generate x --json --out " + out_, "2>&1 >/dev/null"), 1);
  EXPECT_THAT(Output(), HasSubstr(R"("code":"UNAVAILABLE")"));
  EXPECT_THAT(Output(), HasSubstr("ended as FAILED: the reason why"));
  EXPECT_THAT(Output(), Not(HasSubstr("cannot be reached")));
  Close();
  EXPECT_EQ(RunShell("models --json", ""), 3);
  EXPECT_THAT(Output(), HasSubstr(R"("code":"UNAVAILABLE")"));
  EXPECT_THAT(Output(), HasSubstr("cannot be reached"));
}

TEST_F(CliTest, ShowTellsWhyAttemptsEnded) {
  const auto add = [&](int number, const char* reason, const char* message) {
    v1::Attempt* const attempt = server_.job.add_attempts();
    attempt->set_number(number);
    attempt->set_worker("cpu");
    attempt->mutable_start_time()->set_seconds(100);
    attempt->mutable_end_time()->set_seconds(112);
    attempt->mutable_end_time()->set_nanos(500'000'000);
    absl::Status status = absl::InternalError(message);
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    convert::AddDetail(&status, info);
    *attempt->mutable_error() = convert::ToRpc(status);
  };
  add(1, "CRASH", "signal 9 (Killed)");
  add(2, "OF_A_NEWER_SERVER", "a \x1b[31mword");
  v1::Attempt* const last = server_.job.add_attempts();
  last->set_number(3);
  last->set_worker("gpu");
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("1 on cpu, 12.5 s: its worker ended: signal 9 (Killed)\n"));
  EXPECT_THAT(Output(), HasSubstr("2 on cpu, 12.5 s: of a newer server: a  [31mword\n"));
  EXPECT_THAT(Output(), HasSubstr("3 on gpu\n"));
}

TEST_F(CliTest, ShowTellsWhatMadeTheVideo) {
  v1::Receipt& receipt = *server_.job.mutable_receipt();
  receipt.set_worker("gpu");
  receipt.set_worker_version("1.2");
  receipt.set_device("cuda:0");
  receipt.set_device_name("a fast\x1b one");
  receipt.set_model_sha256("abab");
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("made by      gpu 1.2 on cuda:0 (a fast  one)\n"));
  EXPECT_THAT(Output(), HasSubstr("model hash   abab\n"));
  EXPECT_THAT(Output(), Not(HasSubstr("weights"))) << "they are not known";
  receipt.set_weights_sha256("cdcd");
  EXPECT_EQ(Run({"show", "job-1"}), 0);
  EXPECT_THAT(Output(), HasSubstr("weights hash cdcd\n"));
}

}  // namespace
}  // namespace kino::cli
