// The frontend's end of the worker link, moved by a test: it records every message of the worker
// and sends what it is told. Thread-safe. Waits end after 20 s at the latest, with a test failure.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "kino/v1/worker.grpc.pb.h"

namespace kino::worker {

// To run model "good" as `prompt`, the script of a fake engine, says.
inline v1::StartAttempt StartCommand(const std::string& job, const std::string& prompt) {
  v1::StartAttempt command;
  command.mutable_ref()->set_job_id(job);
  command.mutable_ref()->set_attempt(1);
  command.mutable_ref()->set_token("00112233445566778899aabbccddeeff");
  command.mutable_request()->set_model("good");
  command.mutable_request()->set_prompt(prompt);
  command.mutable_request()->set_seed(7);
  return command;
}

class ScriptedFrontend : public v1::WorkerService::Service {
 public:
  explicit ScriptedFrontend(std::string address) : address_(std::move(address)) { Listen(); }
  ~ScriptedFrontend() override { Close(); }

  void Listen() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  void Close() {
    if (server_ == nullptr) return;
    Break();
    server_->Shutdown(absl::ToChronoTime(absl::Now()));
    server_.reset();
  }
  // Ends the current stream as a lost connection would.
  void Break() {
    absl::MutexLock lock(&mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

  // Answers a hello; the default resumes nothing.
  using HelloAnswer = std::function<v1::HelloReply(const v1::WorkerHello&)>;
  void OnHello(HelloAnswer answer) {
    absl::MutexLock lock(&mutex_);
    answer_ = std::move(answer);
  }
  void RefuseHellos(grpc::Status status) {
    absl::MutexLock lock(&mutex_);
    refusal_ = std::move(status);
  }
  void StopAnsweringHeartbeats() {
    absl::MutexLock lock(&mutex_);
    answer_heartbeats_ = false;
  }

  void Send(const v1::FrontendMessage& message) {
    absl::MutexLock lock(&mutex_);
    ASSERT_NE(stream_, nullptr);
    stream_->Write(message);
  }
  v1::AttemptRef Start(const v1::StartAttempt& command) {
    v1::FrontendMessage message;
    *message.mutable_start() = command;
    Send(message);
    return command.ref();
  }
  void Acknowledge(const v1::AttemptRef& ref, int64_t number) {
    v1::FrontendMessage message;
    *message.mutable_ack()->mutable_ref() = ref;
    message.mutable_ack()->set_number(number);
    Send(message);
  }

  // The first recorded message, from `*position` on, that `wanted` accepts; *position moves past
  // it.
  v1::WorkerMessage Await(size_t* position, std::function<bool(const v1::WorkerMessage&)> wanted) {
    const absl::Time limit = absl::Now() + absl::Seconds(20);
    absl::MutexLock lock(&mutex_);
    while (true) {
      for (; *position < messages_.size(); ++*position) {
        if (wanted(messages_[*position])) return messages_[(*position)++];
      }
      if (recorded_.WaitWithDeadline(&mutex_, limit)) {
        ADD_FAILURE() << "the awaited message did not come";
        return {};
      }
    }
  }
  std::vector<v1::WorkerMessage> messages() const {
    absl::MutexLock lock(&mutex_);
    return {messages_.begin(), messages_.end()};
  }

 private:
  using Stream = grpc::ServerReaderWriter<v1::FrontendMessage, v1::WorkerMessage>;

  grpc::Status Link(grpc::ServerContext* context, Stream* stream) override {
    v1::WorkerMessage message;
    if (!stream->Read(&message)) return grpc::Status::OK;
    {
      absl::MutexLock lock(&mutex_);
      if (!refusal_.ok()) return refusal_;
      v1::FrontendMessage reply;
      *reply.mutable_hello_reply() = answer_ ? answer_(message.hello()) : v1::HelloReply();
      reply.mutable_hello_reply()->mutable_heartbeat_interval()->set_nanos(20'000'000);
      if (!reply.hello_reply().has_lease()) {
        reply.mutable_hello_reply()->mutable_lease()->set_seconds(30);
      }
      stream->Write(reply);
      context_ = context;
      stream_ = stream;
    }
    do {
      absl::MutexLock lock(&mutex_);
      if (message.has_heartbeat() && answer_heartbeats_) {
        v1::FrontendMessage ack;
        ack.mutable_heartbeat_ack();
        stream->Write(ack);
      }
      messages_.push_back(message);
      recorded_.SignalAll();
    } while (stream->Read(&message));
    absl::MutexLock lock(&mutex_);
    context_ = nullptr;
    stream_ = nullptr;
    return grpc::Status::OK;
  }

  const std::string address_;
  std::unique_ptr<grpc::Server> server_;
  mutable absl::Mutex mutex_;
  absl::CondVar recorded_;
  std::deque<v1::WorkerMessage> messages_ ABSL_GUARDED_BY(mutex_);
  HelloAnswer answer_ ABSL_GUARDED_BY(mutex_);
  grpc::Status refusal_ ABSL_GUARDED_BY(mutex_);
  bool answer_heartbeats_ ABSL_GUARDED_BY(mutex_) = true;
  grpc::ServerContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace kino::worker
