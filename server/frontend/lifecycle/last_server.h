// How the server that used this data folder before has ended, and a note for the one that comes
// after. Workers die with their kinod: a frontend that finds another kinod's note knows that what
// was RUNNING runs no more, and whether that was by order. The other's note stays until all that
// has been dealt with: who dies before finds it again. Thread-safe.
#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace kino::frontend {

// As far as the attempts are concerned that still ran.
enum class LastStop {
  kFrontendOnly,  // kinod and the workers run on: they come back with their attempts
  kOrderly,       // everything was stopped; what still ran was interrupted
  kUnclean,       // everything died at once: a power cut, kinod killed
};

class LastServer {
 public:
  // `supervisor_id`: of our own kinod; empty: there is none, and nothing can be known or noted.
  LastServer(const std::string& data_dir, std::string supervisor_id);

  // Reads the note. Errors: the file system's.
  absl::StatusOr<LastStop> Read() const;
  // What the last server left running has ended: writes our own note, durably. From then on
  // attempts may start. Errors: the file system's.
  absl::Status TakeOver();
  // kinod is about to end everything. What cannot be noted makes this stop an unclean one; before
  // TakeOver the other's note stays.
  void NoteOrderlyStop();

 private:
  const std::string path_;
  const std::string supervisor_id_;
  absl::Mutex mutex_;
  bool is_ours_ ABSL_GUARDED_BY(mutex_) = false;  // the note
};

}  // namespace kino::frontend
