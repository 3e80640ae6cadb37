// A server that does what a test scripts, the `kino` program against it, and a terminal for it.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "kino/v1/models.grpc.pb.h"
#include "kino/v1/video.grpc.pb.h"
#include "server/convert/status.h"
#include "server/digest/sha256.h"
#include "tests/support/process.h"

namespace kino::cli {

namespace fs = std::filesystem;
using grpc::ServerContext;
using grpc::Status;
using ::testing::HasSubstr;
using ::testing::Not;
using EventWriter = grpc::ServerWriter<v1::JobEvent>;

inline Status ToGrpc(const absl::Status& status) {
  return Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                convert::ToRpc(status).SerializeAsString());
}

// What a server says whose queue has no place.
inline absl::Status QueueIsFull() {
  absl::Status status = absl::ResourceExhaustedError("the queue is full");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(7);
  convert::AddDetail(&status, retry);
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  convert::AddDetail(&status, info);
  return status;
}

inline std::string ReadAll(const std::string& path) {
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
  v1::Model model;
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
    EXPECT_EQ(header.sha256(), digest::Sha256Of(uploaded));
    out->set_id("asset-1");
    return status;
  }
  Status ListModels(ServerContext*, const v1::ListModelsRequest*,
                    v1::ListModelsResponse* out) override {
    v1::Model* const listed_model = out->add_models();
    *listed_model = model;
    listed_model->set_name("demo");
    if (!knob.empty()) {
      v1::KnobInfo* const told = listed_model->add_tasks()->add_knobs();
      told->set_name(knob);
      told->set_type(v1::KnobInfo::NUMBER);
      told->set_help("Of the family.");
    }
    return status;
  }
  Status GetModel(ServerContext*, const v1::GetModelRequest* request, v1::Model* out) override {
    *out = model;
    out->set_name(request->name());
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
      event.mutable_finished()->mutable_artifact()->set_sha256(digest::Sha256Of(bytes));
    }
    return event;
  }

  const std::string folder_ = "/tmp/kino-cli-test-" + std::to_string(getpid());
  const std::string log_ = folder_ + "/log";
  const std::string out_ = folder_ + "/out.mp4";
  ScriptedServer server_;
  std::unique_ptr<grpc::Server> grpc_;
};

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

}  // namespace kino::cli
