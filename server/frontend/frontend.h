// kino-frontend as one object: the store, the files, the worker link, the listeners. main() makes
// one, and so do tests. Start and Stop block and belong to one thread; everything inside has its
// own threads.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/queue/run_history.h"
#include "scheduler/random.h"
#include "scheduler/store/job_store.h"
#include "server/config/config.h"
#include "server/frontend/acceptor/acceptor.h"
#include "server/frontend/artifacts/disk_budget.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/auth/admission.h"
#include "server/frontend/auth/file_version.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/lifecycle/last_server.h"
#include "server/frontend/link/control_link.h"
#include "server/frontend/link/session.h"
#include "server/frontend/link/worker_link.h"
#include "server/frontend/metrics/metrics.h"
#include "server/frontend/rpc/catalog.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/fit_judge.h"
#include "server/frontend/rpc/idle_uploads.h"
#include "server/frontend/rpc/model_service.h"
#include "server/frontend/rpc/reset_guard.h"
#include "server/frontend/rpc/video_service.h"
#include "server/frontend/watch/hub.h"
#include "server/frontend/watch/queue_view.h"

namespace kino::frontend {

struct FrontendOptions {
  config::Config config;
  MediaProbe probe;
  // Called once, at the beginning of Stop: what the probe decodes then, and from then on, ends
  // soon.
  std::function<void()> stop_probe = [] {};
  // The inherited socket to kinod; -1: none, then stuck workers are only cut off.
  int control_fd = -1;
  // Of the kinod that started this process; empty: none did.
  std::string supervisor_id = "";
};

class Frontend {
 public:
  // Opens the store, takes over running attempts, removes left-over files, and listens. The
  // addresses are written to <data_dir>/frontend.addr and metrics.addr last, when everything
  // serves. FAILED_PRECONDITION and PERMISSION_DENIED: what no restart will mend.
  static absl::StatusOr<std::unique_ptr<Frontend>> Start(FrontendOptions options);
  // Stops.
  ~Frontend();

  // Not serving; no new attempts; watchers are told where to go on; then the listeners and the
  // store are closed. Running attempts stay with their workers, unless kinod stops the whole
  // machine: then it waits for them to be given back.
  void Stop();

  const std::string& address() const { return address_; }
  const std::string& metrics_address() const { return metrics_address_; }
  scheduler::JobStore& store() { return *store_; }

 private:
  explicit Frontend(FrontendOptions options);
  absl::Status OpenParts();
  absl::Status StartLink();
  absl::Status RemoveLeftovers();
  absl::Status ListenForWorkers();
  absl::Status ListenForClients();
  // Of each model ("model/NAME"), worker ("worker/NAME") and device ("device/cuda:0"), and of the
  // job store ("store"), beside the services.
  void TellHealth();
  // Where the listener's certificate is another than it was: tells metrics when it ends.
  void LookAtCertificate();

  const FrontendOptions options_;
  scheduler::SystemClock clock_;
  scheduler::SystemRandom random_;
  Metrics metrics_;
  WatchHub hub_;
  scheduler::RunHistory history_;
  FileVersion certificate_version_;  // of the certificate and its key; LookAtCertificate's alone
  LastServer last_server_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<IdleUploads> idle_uploads_;
  std::unique_ptr<FileStore> files_;
  std::atomic<bool> is_machine_stopping_{false};
  std::atomic<bool> is_store_damaged_{false};  // as the look through its file found

  // Who may wait where is bounded; what is refused is told so at once.
  Executor rpc_{"rpc", 3, {.waiting = 1024, .waiting_per_caller = 512}};
  Executor slow_{"slow", 2, {.waiting = 128, .waiting_per_caller = 64}};
  Executor watch_{"watch", 2, {.waiting = 4096, .waiting_per_caller = 2048}};
  // Each that waits holds its media in memory or on the disk.
  Executor media_{"media", 2, {.waiting = 64, .waiting_per_caller = 16}};
  Executor io_{"io", 1};
  Places streams_{32'768, 16'384};
  Places uploads_{256, 64};
  Places commands_{64, 16};

  // The store's threads call into the link: it goes first.
  std::unique_ptr<Profiles> profiles_;  // outlives the link, which answers it
  std::unique_ptr<WorkerLink> link_;
  std::unique_ptr<FitJudge> judge_;
  std::unique_ptr<scheduler::JobStore> store_;
  std::unique_ptr<DiskBudget> budget_;
  std::unique_ptr<QueueView> queue_;
  std::unique_ptr<ControlLink> control_;
  std::unique_ptr<Context> context_;
  std::unique_ptr<VideoService> video_service_;
  std::unique_ptr<ModelService> model_service_;
  std::unique_ptr<LinkService> link_service_;
  std::unique_ptr<Acceptor> link_acceptor_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ResetGuard> reset_guard_;
  std::unique_ptr<grpc::Server> link_server_;
  std::unique_ptr<grpc::Server> server_;
  absl::Mutex health_mutex_;
  // Null before the server serves, and once it stops.
  grpc::HealthCheckServiceInterface* health_ ABSL_GUARDED_BY(health_mutex_) = nullptr;
  std::string address_;
  std::string metrics_address_;
  bool is_stopped_ = false;
};

}  // namespace kino::frontend
