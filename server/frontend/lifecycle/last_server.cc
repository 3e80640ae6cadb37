#include "server/frontend/lifecycle/last_server.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/config/data_dir.h"

namespace kino::frontend {
namespace {

constexpr size_t kMaxNoteBytes = 256;
constexpr char kStopped[] = " stopped";

}  // namespace

LastServer::LastServer(const std::string& data_dir, std::string supervisor_id)
    : path_(absl::StrCat(data_dir, "/run/supervisor")), supervisor_id_(std::move(supervisor_id)) {}

absl::StatusOr<LastStop> LastServer::Begin() {
  if (supervisor_id_.empty()) return LastStop::kFrontendOnly;
  absl::StatusOr<std::string> note = config::ReadSmallFile(path_, kMaxNoteBytes);
  if (!note.ok() && !absl::IsNotFound(note.status())) return note.status();
  const absl::Status written = config::WriteFileAtomically(path_, supervisor_id_, 0600);
  if (!written.ok()) return written;
  if (!note.ok() || *note == supervisor_id_) return LastStop::kFrontendOnly;
  return absl::EndsWith(*note, kStopped) ? LastStop::kOrderly : LastStop::kUnclean;
}

void LastServer::NoteOrderlyStop() {
  if (supervisor_id_.empty()) return;
  const absl::Status written =
      config::WriteFileAtomically(path_, absl::StrCat(supervisor_id_, kStopped), 0600);
  if (!written.ok()) spdlog::warn("the stop cannot be noted: {}", std::string(written.message()));
}

}  // namespace kino::frontend
