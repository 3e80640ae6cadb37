// One worker's stream, as gRPC sees it: reads one message at a time (the next only after the link
// has dealt with the last, so a worker that talks too fast is held back), writes from a short
// bounded queue of commands. Thread-safe. Lives until gRPC's OnDone; others hold it by shared_ptr.
#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "kino/v1/worker.grpc.pb.h"

namespace kino::frontend {

class WorkerLink;

class Session final : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::FrontendMessage>,
                      public std::enable_shared_from_this<Session> {
 public:
  // gRPC owns what this returns until the stream is done. `link` must outlive it.
  static Session* Begin(WorkerLink& link);

  void Send(v1::FrontendMessage message);
  // Ends the stream once what was sent before is out.
  void Close(const absl::Status& status);
  // The link has dealt with the last message.
  void ReadNext();

 private:
  explicit Session(WorkerLink& link) : link_(link) {}
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void StartNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  WorkerLink& link_;
  std::shared_ptr<Session> self_;  // until OnDone
  v1::WorkerMessage incoming_;
  absl::Mutex mutex_;
  std::deque<v1::FrontendMessage> outgoing_ ABSL_GUARDED_BY(mutex_);
  bool is_writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status final_status_ ABSL_GUARDED_BY(mutex_);
};

// The service on the worker socket.
class LinkService final : public v1::WorkerService::CallbackService {
 public:
  explicit LinkService(WorkerLink& link) : link_(link) {}
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::FrontendMessage>* Link(
      grpc::CallbackServerContext* context) override;

 private:
  WorkerLink& link_;
};

}  // namespace kino::frontend
