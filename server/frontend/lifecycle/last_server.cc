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

absl::StatusOr<LastStop> LastServer::Read() const {
  if (supervisor_id_.empty()) return LastStop::kFrontendOnly;
  const absl::StatusOr<std::string> note = config::ReadSmallFile(path_, kMaxNoteBytes);
  if (!note.ok() && !absl::IsNotFound(note.status())) return note.status();
  if (!note.ok() || *note == supervisor_id_) return LastStop::kFrontendOnly;
  return absl::EndsWith(*note, kStopped) ? LastStop::kOrderly : LastStop::kUnclean;
}

absl::Status LastServer::TakeOver() {
  if (supervisor_id_.empty()) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  const absl::Status written = config::WriteFileAtomically(path_, supervisor_id_, 0600);
  is_ours_ = written.ok();
  return written;
}

void LastServer::NoteOrderlyStop() {
  absl::MutexLock lock(&mutex_);
  if (!is_ours_) return;
  const absl::Status written =
      config::WriteFileAtomically(path_, absl::StrCat(supervisor_id_, kStopped), 0600);
  if (!written.ok()) spdlog::warn("the stop cannot be noted: {}", std::string(written.message()));
}

}  // namespace kino::frontend
