// How the server that used this data folder before has ended, and a note for the one that comes
// after. Workers die with their kinod: a frontend that finds another kinod's note knows that what
// was RUNNING runs no more, and whether that was by order. Begin and NoteOrderlyStop may be called
// from different threads, one after the other.
#pragma once

#include <string>

#include "absl/status/statusor.h"

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

  // Reads the note and writes our own, durably. Errors: the file system's.
  absl::StatusOr<LastStop> Begin();
  // kinod is about to end everything. What cannot be noted makes this stop an unclean one.
  void NoteOrderlyStop();

 private:
  const std::string path_;
  const std::string supervisor_id_;
};

}  // namespace kino::frontend
