// Follows one job to its end: shows progress, writes the chunks, attaches again when the connection
// breaks, and asks on Ctrl-C. One thread, plus one that waits for SIGINT. REQUIRES: SIGINT is
// blocked in every thread.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kino/v1/video.pb.h"
#include "server/cli/client.h"
#include "server/cli/output_file.h"
#include "server/cli/print.h"

namespace kino::cli {

// SIGINT, made visible to a thread that blocks in a stream. Thread-safe.
class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  // The call that an interrupt cancels; null for none.
  void SetCall(grpc::ClientContext* context);
  // Whether SIGINT came since the last Take.
  bool Take() { return interrupted_.exchange(false); }
  bool has_come() const { return interrupted_.load(); }

 private:
  std::atomic<bool> stop_{false}, interrupted_{false};
  absl::Mutex mutex_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;
};

struct WatchOptions {
  std::string out;          // where the video goes
  bool wants_video = true;  // with an empty `out`: ID.mp4
  bool is_json = false;
  bool is_quiet = false;
  bool is_interactive = false;  // both standard input and standard error are terminals
  // How long a lost connection is tried again.
  absl::Duration reattach = absl::Seconds(60);
};

class JobWatch {
 public:
  JobWatch(Client& client, WatchOptions options);

  // Submits and follows. `request` has a request_id, so that a repeated submission makes no second
  // job.
  ExitCode Generate(const v1::GenerateRequest& request);
  ExitCode Watch(const std::string& id);

 private:
  enum class Answer { kCancel, kLeave, kGoOn };

  ExitCode Follow();
  // One call from opening to its end; what goes wrong here (a full disk) is left in local_error_.
  absl::Status FollowOnce();
  absl::Status Handle(const v1::JobEvent& event);
  absl::Status OpenOutput();
  Answer Ask();
  ExitCode Leave();
  ExitCode Conclude();
  ErrorStyle Style() const;
  // An error of this machine's own, with the job's id.
  ExitCode ReportLocalFault(const absl::Status& error) const;
  // Where results are told: standard output, unless the video goes there.
  std::ostream& Words() const;

  Client& client_;
  const WatchOptions options_;
  InterruptWatch interrupt_;
  ProgressView view_;
  std::optional<v1::GenerateRequest> request_;  // while there is no id
  std::string id_;
  int64_t state_number_ = 0;
  std::unique_ptr<OutputFile> output_;
  absl::Status local_error_;
  bool heard_ = false;  // an event came since the last try
  std::optional<v1::Job> finished_;
};

}  // namespace kino::cli
