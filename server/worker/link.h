// The worker's end of WorkerService.Link: dials the frontend, says hello, sends heartbeats and the
// held attempts' events, takes commands; when the stream breaks, dials again with back-off and
// sends again what was not acknowledged. Two threads of its own: one dials and reads, one writes.
// Commands reach the delegate on the reading thread. All its times are monotonic: a wall clock that
// is set loses no lease and no heartbeat.
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
#include "scheduler/clock.h"
#include "server/worker/held_attempts.h"
#include "server/worker/patience.h"
#include "server/worker/wakeup.h"

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
  virtual void OnCheckDevice(v1::CheckDeviceCommand command) = 0;
};

class Link {
 public:
  // `held`, `delegate` and `clock` outlive this.
  Link(LinkOptions options, HeldAttempts& held, LinkDelegate& delegate,
       const scheduler::Clock& clock);
  // Stops.
  ~Link();

  void Start();
  // Ends the stream and both threads. REQUIRES: not called by the delegate.
  void Stop();

  // There is something to send, or the clock was moved by a test. Any thread.
  void Notify();
  void SendModelResult(v1::ModelCommandResult result);
  // An answer that meets no stream is dropped: the frontend asks again.
  void SendProfile(v1::ProfileAnswer answer);
  // Tells the frontend, now and after each new hello, that no more attempts are taken.
  void SetDraining();

  // Breaks a stream on which nothing was heard for a lease, as far as this process listened. Call
  // it in each round of the main loop.
  void CheckLease();
  // When a hello or a heartbeat was last answered, monotonic; before the first, when Start was
  // called.
  absl::Duration last_contact() const;
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
  // Until there is something to send or `next_heartbeat` has come. False: the stream ends.
  bool AwaitWork(absl::Duration next_heartbeat);
  // Both threads look again at what they wait for.
  void Wake();
  // For the next stream: the frontend asks again or takes the late answer.
  void KeepResults(std::deque<v1::ModelCommandResult> results);
  void Dispatch(v1::FrontendMessage message);
  void TakeHelloReply(const v1::HelloReply& reply);
  void Heard();

  const LinkOptions options_;
  HeldAttempts& held_;
  LinkDelegate& delegate_;
  const scheduler::Clock& clock_;
  std::thread dialler_;
  Wakeup dialler_wakeup_, writer_wakeup_;
  Patience patience_;  // the main loop's alone

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool stream_ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool notified_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<v1::ModelCommandResult> model_results_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::ProfileAnswer> profiles_ ABSL_GUARDED_BY(mutex_);
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::Duration stream_began_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_contact_ ABSL_GUARDED_BY(mutex_);
  absl::Duration lease_ ABSL_GUARDED_BY(mutex_);
  absl::Duration heartbeat_interval_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1);
  absl::Status refused_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::worker
