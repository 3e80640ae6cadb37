#include "server/frontend/link/session.h"

#include <utility>

#include "server/frontend/link/worker_link.h"

namespace kino::frontend {
namespace {

// Commands to one worker are few; one that leaves so many unread is broken.
constexpr size_t kMaxOutgoing = 4096;

grpc::Status PlainStatus(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

}  // namespace

Session* Session::Begin(WorkerLink& link) {
  std::shared_ptr<Session> session(new Session(link));
  session->self_ = session;
  session->StartRead(&session->incoming_);
  return session.get();
}

void Session::Send(v1::FrontendMessage message) {
  absl::MutexLock lock(&mutex_);
  if (is_closing_) return;
  if (outgoing_.size() >= kMaxOutgoing) {
    outgoing_.clear();
    is_closing_ = true;
    final_status_ = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "commands are not read");
  } else {
    outgoing_.push_back(std::move(message));
  }
  StartNext();
}

void Session::Close(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (is_closing_) return;
  is_closing_ = true;
  final_status_ = PlainStatus(status);
  StartNext();
}

void Session::StartNext() {
  if (is_writing_ || is_finished_) return;
  if (!outgoing_.empty()) {
    is_writing_ = true;
    StartWrite(&outgoing_.front());
  } else if (is_closing_) {
    is_finished_ = true;
    Finish(final_status_);
  }
}

void Session::ReadNext() {
  // Under the lock: once Finish was called gRPC may end the stream, and this with it.
  absl::MutexLock lock(&mutex_);
  if (!is_finished_) StartRead(&incoming_);
}

void Session::OnReadDone(bool ok) {
  std::shared_ptr<Session> self = shared_from_this();
  if (ok) {
    link_.OnMessage(std::move(self), std::move(incoming_));
    return;
  }
  link_.OnStreamEnded(std::move(self));
  Close(absl::OkStatus());
}

void Session::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  is_writing_ = false;
  if (ok) {
    outgoing_.pop_front();
  } else {
    outgoing_.clear();
    is_closing_ = true;
  }
  StartNext();
}

void Session::OnCancel() { Close(absl::CancelledError("the stream was cancelled")); }

void Session::OnDone() {
  std::shared_ptr<Session> self = std::move(self_);
  link_.OnStreamEnded(std::move(self));
}

grpc::ServerBidiReactor<v1::WorkerMessage, v1::FrontendMessage>* LinkService::Link(
    grpc::CallbackServerContext* context) {
  (void)context;
  return Session::Begin(link_);
}

}  // namespace kino::frontend
