// What there is to know of a node before, or while, Kino runs on it. Free function; no torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/doctor/nvml.h"

namespace kino::doctor {

struct DataFolder {
  std::string path{};
  bool exists = false;
  std::string problem{};  // why it cannot be used, or made
  unsigned mode = 0;      // permission bits; of one that exists, as is the next
  bool is_own = true;     // this user's
  int64_t free_bytes = 0;
  std::string file_system{};  // "nfs", "tmpfs", "overlay", or empty: none that is worth a word
  // The median of some small writes that were each synced; none where nothing could be written.
  std::optional<absl::Duration> sync{};
};

struct Listener {
  std::string key{};  // of the configuration: "listen.address"
  std::string address{};
  std::string problem{};    // why it cannot be listened on
  bool is_running = false;  // by what is written in the data folder, a server may be there already
};

struct Model {
  std::string name{};
  std::string found{};    // family and pipeline
  std::string problem{};  // why it cannot run
};

struct NodeFacts {
  absl::Time now{};
  Driver driver{};
  int cores = 1;
  int64_t memory_bytes = 0;
  int64_t open_files = 0;  // that a process may have open; 0: any number
  // All of these: of the configuration, where one is given.
  std::optional<DataFolder> data{};
  std::vector<Listener> listeners{};
  std::vector<Model> models{};
  bool has_certificate = false;
  std::string certificate_problem{};
  absl::Time certificate_end{};
  std::string credentials_problem{};
};

// Looks at the node; `config` may be null. Writes a file of some bytes into the data folder and
// removes it, and listens on the addresses for a moment.
NodeFacts LookAtNode(const config::Config* config);

}  // namespace kino::doctor
