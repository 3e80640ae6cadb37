// WatchJob's and Generate's streams: what a WatchCursor gives goes out with one write in flight. A
// slow or stalled client costs nothing, and ending the watch changes nothing.
//
// gRPC's reactions only post; the work is done on the watch executor, one step at a time per
// watcher. Lives until OnDone and until the last posted step has run.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/grpc_call.h"
#include "server/frontend/rpc/watch_cursor.h"
#include "server/frontend/watch/hub.h"
#include "server/frontend/watch/step_gate.h"

namespace kino::frontend {

class Watcher final : public grpc::ServerWriteReactor<v1::JobEvent>,
                      public Wakeable,
                      public std::enable_shared_from_this<Watcher> {
 public:
  // gRPC owns what these return until the stream is done; then `context` may go. A caller that was
  // not let in gets a stream that only ends.
  static Watcher* Watch(const Context& context, const absl::StatusOr<Caller>& caller,
                        const v1::WatchJobRequest& request);
  // Submits first; the watch begins at the job's first state. `request` lives as long as the
  // stream.
  static Watcher* Generate(const Context& context, const absl::StatusOr<Caller>& caller,
                           const v1::GenerateRequest* request);

  void Wake() override;

 private:
  explicit Watcher(const Context& context) : context_(context) {}
  static std::shared_ptr<Watcher> Make(const Context& context);
  // A place among the streams; false: the stream has been ended.
  bool TakePlace(const absl::StatusOr<Caller>& caller);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Begin(const std::string& tenant, v1::WatchJobRequest from);
  void PostStep();
  void Step();
  Look Send();
  void End(const absl::Status& status) { Finish(ToGrpc(status)); }

  const Context& context_;
  std::shared_ptr<Watcher> self_;  // until OnDone
  std::shared_ptr<void> place_;
  StepGate gate_;
  std::atomic<bool> is_cancelled_{false};

  // The step's own.
  std::optional<WatchCursor> cursor_;
  bool has_begun_ = false;
  v1::JobEvent event_;
};

}  // namespace kino::frontend
