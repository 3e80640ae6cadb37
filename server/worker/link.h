// The worker's end of WorkerService.Link: dials the frontend, says hello, sends heartbeats and the
// held attempts' events, takes commands; when the stream breaks, dials again with back-off and
// sends again what was not acknowledged. Two threads of its own: one dials and reads, one writes.
// Commands reach the delegate on the reading thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kino/v1/worker.grpc.pb.h"
#include "server/worker/held_attempts.h"

namespace kino::worker {

inline constexpr int kProtocolVersion = 1;

struct LinkOptions {
  std::string address;  // what gRPC dials, "unix:/..."
  absl::Duration back_off_min = absl::Milliseconds(50);
  absl::Duration back_off_max = absl::Seconds(2);
  // Until a HelloReply says otherwise.
  absl::Duration lease = absl::Seconds(10);
};

// Who acts on commands. Each call returns soon; the engine's work happens elsewhere.
class LinkDelegate {
 public:
  virtual ~LinkDelegate() = default;
  // All but `held`.
  virtual v1::WorkerHello Hello() = 0;
  virtual v1::WorkerHeartbeat Heartbeat() = 0;
  virtual void OnStart(v1::StartAttempt command) = 0;
  virtual void OnDrain() = 0;
  virtual void OnLoadModel(v1::LoadModelCommand command) = 0;
  virtual void OnUnloadModel(v1::UnloadModelCommand command) = 0;
  virtual void OnProfile(v1::ProfileQuery query) = 0;
};

class Link {
 public:
  // `held` and `delegate` outlive this.
  Link(LinkOptions options, HeldAttempts& held, LinkDelegate& delegate);
  // Stops.
  ~Link();

  void Start();
  // Ends the stream and both threads. REQUIRES: not called by the delegate.
  void Stop();

  // There is something to send. Any thread.
  void Notify();
  void SendModelResult(v1::ModelCommandResult result);
  // An answer that meets no stream is dropped: the frontend asks again.
  void SendProfile(v1::ProfileAnswer answer);
  // Tells the frontend, now and after each new hello, that no more attempts are taken.
  void SetDraining();

  // Breaks a stream on which nothing was heard for a lease. Call it now and then.
  void CheckLease(absl::Time now);
  // When a hello or a heartbeat was last answered; before the first, when Start was called.
  absl::Time last_contact() const;
  absl::Duration lease() const;
  // Set once the frontend has refused this worker for good (another protocol version, a wrong
  // secret).
  absl::Status refused() const;

 private:
  using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::FrontendMessage>;

  void DialLoop();
  // One stream from dialling to its end. Whether a hello was answered on it.
  bool RunStream();
  void ReadLoop(Stream& stream);
  void WriteLoop(Stream& stream);
  // For the next stream: the frontend asks again or takes the late answer.
  void KeepResults(std::deque<v1::ModelCommandResult> results);
  void Dispatch(v1::FrontendMessage message);
  void TakeHelloReply(const v1::HelloReply& reply);
  void Heard();

  const LinkOptions options_;
  HeldAttempts& held_;
  LinkDelegate& delegate_;
  std::thread dialler_;

  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool stream_ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool notified_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<v1::ModelCommandResult> model_results_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::ProfileAnswer> profiles_ ABSL_GUARDED_BY(mutex_);
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::Time stream_began_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_contact_ ABSL_GUARDED_BY(mutex_);
  absl::Duration lease_ ABSL_GUARDED_BY(mutex_);
  absl::Duration heartbeat_interval_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1);
  absl::Status refused_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::worker
